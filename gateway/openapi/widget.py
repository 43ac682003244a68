"""Open Chat Widget's routes: messages, and what its operators read."""

from typing import Final

from gateway.dialects.widget import MAX_UTF16_UNITS, ONE_SHOT_PATH, Widget
from gateway.errors import NotFound
from gateway.framing.ndjson import MEDIA_TYPE
from gateway.neighbours.widget import (
    DEFAULT_LIMIT,
    MAX_ID,
    MAX_LIMIT,
    WidgetHealth,
    WidgetList,
    WidgetThread,
)
from gateway.openapi.parts import (
    ID,
    INTEGER,
    KEYED_ERRORS,
    ONCE,
    OPEN_ERRORS,
    STRING,
    TURN_ERRORS,
    Answer,
    Body,
    Content,
    ErrorShape,
    Operation,
    Schema,
    Section,
    answer,
    array,
    query,
    record,
    ref,
    request,
    served,
    text,
)
from gateway.openapi.samples import streams
from gateway.ports.routes import Route

_STREAM: Final = """\
One JSON object to a line. `start` comes first; `token` has text to append. The last one is `done`
with the whole reply, or `error` if the turn failed. Empty lines are keep-alives.
"""
_UNITS: Final = f"1 to {MAX_UTF16_UNITS} UTF-16 code units: a character beyond U+FFFF counts twice."
_DIALECT: Final = Widget()
_CHAT: Final = request(
    {"sessionId": ID, "message": text(MAX_UTF16_UNITS, shortest=1, description=_UNITS)}
)
_LINES: Final = Answer(
    "The turn's records.",
    {
        MEDIA_TYPE.partition(";")[0]: Content(
            {"type": "string", "description": _STREAM}, streams(_DIALECT, "ndjson")
        )
    },
    "WidgetStream",
)
_WHOLE: Final = answer("The whole reply.", record(conversationId=STRING, message=STRING))
_NUMBER: Final[Schema] = {"type": "number"}
_SCHEMAS: Final[dict[str, Schema]] = {
    "WidgetConversation": record(
        _id=STRING,
        _creationTime=_NUMBER,
        sessionId=STRING,
        createdAt=INTEGER,
        updatedAt=INTEGER,
        lastMessage=STRING,
    ),
    "WidgetMessage": record(
        _id=STRING,
        role={"enum": ["system", "user", "assistant"]},
        content=STRING,
        createdAt=INTEGER,
    ),
}
_LIMIT: Final = query(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "How many to list.",
)


def _chat(route: Route) -> Operation:
    whole = route.path == ONE_SHOT_PATH
    return Operation(
        route,
        "Send a message" if whole else "Send a message and stream the reply",
        {200: _WHOLE if whole else _LINES},
        TURN_ERRORS,
        _DIALECT.credentials,
        (ONCE,),
        Body(_CHAT),
    )


SECTION: Final = Section(
    name=_DIALECT.name,
    description="Open Chat Widget: messages answered with lines of JSON.",
    operations=(
        *map(_chat, _DIALECT.routes),
        Operation(
            WidgetHealth.routes[0],
            "Is it alive?",
            {200: answer("The event loop runs.", record(status={"const": "ok"}))},
            OPEN_ERRORS,
        ),
        *served(
            WidgetList,
            "List conversations",
            {
                200: answer(
                    "The last written to first.",
                    record(conversations=array(ref("WidgetConversation")), total=INTEGER),
                )
            },
            KEYED_ERRORS,
            parameters=(_LIMIT,),
        ),
        *served(
            WidgetThread,
            "Show a conversation",
            {
                200: answer(
                    "The conversation and its newest messages.",
                    record(
                        conversation=ref("WidgetConversation"),
                        messages=array(ref("WidgetMessage")),
                    ),
                )
            },
            (*KEYED_ERRORS, NotFound()),
            ids={"type": "string", "minLength": 1, "maxLength": MAX_ID},
        ),
    ),
    schemas=_SCHEMAS,
    errors=ErrorShape(record(error=STRING), _DIALECT.encode_error),
    credentials={
        **dict.fromkeys(_DIALECT.credentials, "One of the tenant's keys."),
        WidgetList.credentials[0]: "The tenant's key for its operators.",
    },
)
