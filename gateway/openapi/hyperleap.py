"""Hyperleap's routes: conversations, and messages in any of four framings."""

from typing import Final

import orjson

from gateway.dialects.hyperleap import ROUTE_FRAMING, Hyperleap
from gateway.errors import HttpError, NotFound
from gateway.framing import events_out, jsonarray, ndjson
from gateway.neighbours.hyperleap import (
    MAX_NAME,
    PAGE,
    SYSTEMS,
    HyperleapConversation,
    HyperleapList,
    HyperleapPersona,
    HyperleapStart,
)
from gateway.neighbours.started import MAX_BYTES, MAX_VALUES
from gateway.openapi.parts import (
    ANY,
    ANY_JSON,
    BOOLEAN,
    ID,
    INTEGER,
    KEYED_ERRORS,
    MOMENT,
    NULL,
    ONCE,
    STRING,
    TURN_ERRORS,
    UUID,
    Answer,
    Body,
    Content,
    ErrorShape,
    Operation,
    Schema,
    Section,
    answer,
    array,
    nullable,
    query,
    record,
    ref,
    request,
    served,
    text,
)
from gateway.openapi.samples import streams
from gateway.ports.routes import Route

_ITEMS: Final = """\
The reply as items of one schema. `choice.message.content` is text to append. The first item has no
text; nor has the last one, which alone has a `finish_reason`, with usage and citations. A turn that
failed ends with the reason `error`.
"""
_ARRAY: Final = _ITEMS + "They are one JSON array that grows; white space is a keep-alive."
_LINES: Final = _ITEMS + "One item to a line; empty lines are keep-alives."
_EVENTS: Final = _ITEMS + "One item to an event's data; comments are keep-alives."
_DIALECT: Final = Hyperleap()
_OBJECT: Final[Schema] = {"type": "object"}
_KEPT: Final[Schema] = nullable(
    {"type": "object", "description": f"At most {MAX_BYTES} bytes of JSON."}
)

_STARTING: Final[dict[str, Schema]] = {
    "externalUserId": nullable(text(MAX_NAME)),
    "metadata": _KEPT,
    "replacements": nullable(
        {
            "type": "object",
            "maxProperties": MAX_VALUES,
            "description": f"Values for the agent's prompt; at most {MAX_BYTES} bytes of JSON.",
        }
    ),
}
_GENERAL: Final = request(
    {
        "aiSystem": {"type": "integer", "minimum": SYSTEMS[0], "maximum": SYSTEMS[-1]},
        "model": text(MAX_NAME, shortest=1),
    },
    {"systemMessage": nullable(text()), "configuration": _KEPT, "dataspaceIds": ANY, **_STARTING},
)
_PERSONA: Final = request(
    {"personaId": text(MAX_NAME, shortest=1, description="One of the tenant's, if it has any.")},
    {"personaVersionId": nullable(text(MAX_NAME)), "stream": ANY, **_STARTING},
)


def _media(media_type: str) -> str:
    return media_type.partition(";")[0]


def _stream(media_type: str, framing: str, description: str) -> dict[str, Content]:
    written = streams(_DIALECT, framing)
    if framing == "array":
        items: dict[str, object] = {name: orjson.loads(it) for name, it in written.items()}
        schema = array(ref("GenAiStreamingChatChoice"))
        return {_media(media_type): Content({**schema, "description": description}, items)}
    return {_media(media_type): Content({"type": "string", "description": description}, written)}


_WHOLE: Final = answer("The whole reply.", ref("GenAiChatResponse"), "HyperleapReply")
_EVENT_STREAM: Final = Answer(
    "The reply.", _stream(events_out.MEDIA_TYPE, "sse", _EVENTS), "HyperleapEvents"
)
_STREAMS: Final = Answer(
    "The reply, in the framing that `Accept` likes best; a JSON array unless it says otherwise.",
    {
        **_stream(jsonarray.MEDIA_TYPE, "array", _ARRAY),
        **_stream(events_out.MEDIA_TYPE, "sse", _EVENTS),
        **_stream(ndjson.MEDIA_TYPE, "ndjson", _LINES),
    },
    "HyperleapStream",
)


def _chat(route: Route) -> Operation:
    framing = ROUTE_FRAMING[route.path.rpartition("/")[2]]
    reply = {"one-shot": _WHOLE, "sse": _EVENT_STREAM}.get(framing or "", _STREAMS)
    return Operation(
        route,
        "Send a message" if framing == "one-shot" else "Send a message and stream the reply",
        {200: reply},
        TURN_ERRORS,
        _DIALECT.credentials,
        (ONCE,),
        Body(request({"message": text(shortest=1)}), ANY_JSON),
        ID,
    )


_MESSAGE: Final[dict[str, Schema]] = {
    "role": {"enum": ["system", "user", "assistant", "tool"]},
    "content": STRING,
    "toolCallId": nullable(STRING),
    "name": nullable(STRING),
}
_TOKENS: Final = {"promptTokens": NULL, "completionTokens": NULL, "totalTokens": NULL}
_SCHEMAS: Final[dict[str, Schema]] = {
    "GenAiChatChoice": record(
        finish_reason=nullable(
            {"enum": ["stop", "length", "tool_calls", "content_filter", "other", "error"]}
        ),
        index=INTEGER,
        message=record(**_MESSAGE),
        moderation_results=nullable(
            record(
                categoryResults=array(
                    record(category=STRING, filtered=BOOLEAN, severity=nullable(STRING))
                )
            )
        ),
    ),
    "GenAiUsage": record(prompt_tokens=INTEGER, completion_tokens=INTEGER, total_tokens=INTEGER),
    "Citation": record(
        link=nullable(STRING),
        index=STRING,
        documentId=NULL,
        fileId=NULL,
        sourceContentType=NULL,
        sourceName=nullable(STRING),
        sourceUrl=nullable(STRING),
        partitions=array(
            record(
                text=nullable(STRING),
                relevance=NULL,
                partitionNumber=NULL,
                sectionNumber=NULL,
                lastUpdate=NULL,
                tags=NULL,
            )
        ),
    ),
    "GenAiStreamingChatChoice": record(
        choice=ref("GenAiChatChoice"),
        usage=nullable(ref("GenAiUsage")),
        messageId=UUID,
        runId=UUID,
        citations=nullable(array(ref("Citation"))),
    ),
    "GenAiChatResponse": record(
        id=STRING,
        object={"const": "chat.completion"},
        usage=nullable(ref("GenAiUsage")),
        created=INTEGER,
        choices=array(ref("GenAiChatChoice")),
        messageId=UUID,
        runId=UUID,
        httpRequestId=STRING,
        citations=array(ref("Citation")),
        prompt_moderations=NULL,
    ),
    "ChatEntryResponse": record(
        conversationId=ID,
        aiSystem=NULL,
        model=STRING,
        personaId=nullable(STRING),
        personaVersionId=nullable(STRING),
        conversationStatus=NULL,
        conversationName=nullable(STRING),
        chatMessages=array(
            record(
                **_MESSAGE,
                messageId=STRING,
                timestamp=MOMENT,
                feedbacks=NULL,
                **_TOKENS,
                conversationRunId=NULL,
            )
        ),
        chatMessagesCount=INTEGER,
        chatStarted=BOOLEAN,
        areChatMessagesInBlob=BOOLEAN,
        chatMessagesBlobUri=NULL,
        configuration=nullable(_OBJECT),
        metadata=nullable(_OBJECT),
        externalUserId=nullable(STRING),
        isActive=BOOLEAN,
        isDeleted=BOOLEAN,
        **_TOKENS,
    ),
    "ChatEntryPage": record(
        data={**array(ref("ChatEntryResponse")), "maxItems": PAGE},
        continuationToken=nullable(STRING),
    ),
}
_ENTRY: Final = answer("The conversation.", ref("ChatEntryResponse"))
_CONTINUE: Final = query("continuationToken", STRING, "From the page before.")

SECTION: Final = Section(
    name=_DIALECT.name,
    description="Hyperleap: conversations, and messages answered with a growing JSON array.",
    operations=(
        *map(_chat, _DIALECT.routes),
        *served(
            HyperleapStart,
            "Start a conversation",
            {200: _ENTRY},
            (*KEYED_ERRORS, HttpError(415)),
            body=Body(_GENERAL, ANY_JSON),
        ),
        *served(
            HyperleapPersona,
            "Start a conversation with a persona",
            {200: _ENTRY},
            (*KEYED_ERRORS, HttpError(415), NotFound()),
            body=Body(_PERSONA, ANY_JSON),
        ),
        *served(
            HyperleapList,
            "List conversations",
            {200: answer("A page, the last written to first.", ref("ChatEntryPage"))},
            KEYED_ERRORS,
            parameters=(_CONTINUE,),
        ),
        *served(
            HyperleapConversation,
            "Show a conversation",
            {200: _ENTRY},
            (*KEYED_ERRORS, NotFound()),
            ids=ID,
        ),
    ),
    schemas=_SCHEMAS,
    errors=ErrorShape(
        record(
            error={
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": STRING,
                    "message": STRING,
                    "details": array(record(field=STRING, issue=STRING)),
                },
            }
        ),
        _DIALECT.encode_error,
    ),
    credentials={_DIALECT.credentials[0]: "One of the tenant's keys."},
)
