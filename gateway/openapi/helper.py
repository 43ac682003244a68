"""Helper's routes: sessions, conversations, and messages in the AI SDK's stream protocols."""

from typing import Final

from gateway.dialects.helper import DATA_STREAM, MAX_MESSAGE_ID, UI_MESSAGE_STREAM, Helper
from gateway.errors import (
    Forbidden,
    HttpError,
    MailboxNotFound,
    NotFound,
    NotOwner,
    RateLimited,
    StoreUnavailable,
)
from gateway.framing import datastream, uimessages
from gateway.neighbours.helper_conversations import (
    MAX_LIMIT,
    MAX_SUBJECT,
    PAGE,
    HelperConversation,
    HelperList,
    HelperResume,
    HelperStart,
    HelperUnread,
    HelperUnserved,
    HelperUpdate,
)
from gateway.neighbours.helper_sessions import HelperSessions
from gateway.openapi.parts import (
    ANY,
    BOOLEAN,
    ID,
    INTEGER,
    KEYED_ERRORS,
    MOMENT,
    NULL,
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
    nullable,
    query,
    record,
    ref,
    request,
    served,
    text,
)
from gateway.openapi.samples import streams

_DATA_STREAM: Final = """\
For clients of the AI SDK 4: the data stream protocol. A line is a code, a colon and JSON: `0` is
text to append, `g` reasoning, `9` a tool call, `a` its result, `f` and `e` begin and end a step.
The last line but sources (`h`) and annotations (`8`) is `d`; after a failure `3` comes first.
Empty lines are keep-alives.
"""
_UI_STREAM: Final = """\
For clients of the AI SDK 5 and later, and for `Accept: text/event-stream`: the UI message stream.
One JSON chunk to an event's data, then `[DONE]`. `text-delta` has text to append; the last chunk
is `finish`, or `error` if the turn failed. Comments are keep-alives.
"""
_DIALECT: Final = Helper()
_MAILBOX: Final = (*KEYED_ERRORS, MailboxNotFound())
_OWNED: Final = (*_MAILBOX, NotFound(), NotOwner())

_TEXT_PART: Final = request({"type": {"const": "text"}, "text": text()})
_OTHER_PART: Final = request({"type": {"type": "string", "not": {"enum": ["text", "file"]}}})
_PARTS: Final[Schema] = array({"anyOf": [_TEXT_PART, _OTHER_PART]})
_ROLE: Final[Schema] = {"enum": ["user", "assistant"]}
_MORE: Final[dict[str, Schema]] = {
    "id": nullable(
        {
            "type": "string",
            "maxLength": MAX_MESSAGE_ID,
            "pattern": "^[ -~]*$",
            "description": "Printable characters, also those beyond ASCII; made if it is missing.",
        }
    ),
    "experimental_attachments": nullable({"type": "array", "maxItems": 0}),
    "toolInvocations": {
        "description": "In an assistant's message: calls of the client's own tools, with their "
        "results, as AI SDK 4 posts them; later versions have them among the parts.",
    },
}
_MESSAGE: Final[Schema] = {
    "anyOf": [
        request({"role": _ROLE, "content": text()}, {"parts": nullable(_PARTS), **_MORE}),
        request({"role": _ROLE, "parts": _PARTS}, {"content": nullable(text()), **_MORE}),
    ]
}
_CHAT: Final = request(
    {"message": _MESSAGE, "conversationSlug": ID},
    {"customerSpecificTools": ANY, "tools": ANY},
)
_SESSION: Final = request(
    {},
    {
        "email": nullable({**text(), "description": "Makes a session of a known visitor."}),
        "emailHash": nullable(
            text(description="Hex HMAC-SHA256 of `<email>:<timestamp>` under the session secret.")
        ),
        "timestamp": nullable({"type": "integer", "description": "Milliseconds; an hour's skew."}),
        "currentToken": nullable(text()),
        "mailboxSlug": nullable(text()),
    },
)
_SCHEMAS: Final[dict[str, Schema]] = {
    "HelperSession": record(
        valid={"const": True},
        token=STRING,
        supabaseUrl=STRING,
        supabaseAnonKey=STRING,
        showWidget=BOOLEAN,
        notifications=array(ANY),
        experimentalReadPage=NULL,
    ),
    "HelperMessage": record(
        id=STRING,
        role=_ROLE,
        content=STRING,
        createdAt=MOMENT,
        staffName=NULL,
        reactionType=NULL,
        reactionFeedback=NULL,
        reactionCreatedAt=NULL,
        publicAttachments=array(ANY),
        privateAttachments=array(ANY),
    ),
    "HelperConversation": record(
        slug=ID,
        subject=nullable(STRING),
        isEscalated=BOOLEAN,
        messages=array(ref("HelperMessage")),
        experimental_guideSessions=array(ANY),
    ),
    "HelperConversationSummary": record(
        slug=ID,
        subject=STRING,
        createdAt=MOMENT,
        latestMessage=nullable(STRING),
        latestMessageAt=nullable(MOMENT),
        messageCount=INTEGER,
        isEscalated=BOOLEAN,
        isUnread=BOOLEAN,
    ),
}
_REFUSED_SESSION: Final[Schema] = request({"error": STRING}, {"valid": {"const": False}})
_LIST: Final = (
    query("cursor", STRING, "From the page before."),
    query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": PAGE},
        "How many to list.",
    ),
)
_MARK: Final = query("markRead", STRING, "`false` leaves the messages unread.")


def _stream(description: str, framing: str) -> Content:
    named = ("reply", "tool", "guard", "failure")
    return Content(
        {"type": "string", "description": description}, streams(_DIALECT, framing, *named)
    )


SECTION: Final = Section(
    name=_DIALECT.name,
    description="Helper: sessions, conversations, and messages answered in a stream protocol.",
    operations=(
        *served(
            _DIALECT,
            "Send a message and stream the reply",
            {
                200: Answer(
                    "The reply, in the protocol that the request's client reads.",
                    {
                        datastream.MEDIA_TYPE.partition(";")[0]: _stream(_DATA_STREAM, DATA_STREAM),
                        uimessages.MEDIA_TYPE: _stream(_UI_STREAM, UI_MESSAGE_STREAM),
                    },
                )
            },
            (*TURN_ERRORS, MailboxNotFound(), NotOwner()),
            parameters=(ONCE,),
            body=Body(_CHAT),
        ),
        Operation(
            HelperSessions.routes[0],
            "Get a session token",
            {
                200: answer("A session.", ref("HelperSession")),
                401: answer("The e-mail's signature or time is not good.", _REFUSED_SESSION),
            },
            (
                *OPEN_ERRORS,
                HttpError(415),
                Forbidden(),
                RateLimited(),
                StoreUnavailable(),
            ),
            body=Body(_SESSION),
        ),
        *served(
            HelperStart,
            "Start a conversation",
            {200: answer("Its slug.", record(conversationSlug=ID))},
            (*_MAILBOX, HttpError(415)),
            body=Body(request({}, {"subject": nullable(text(MAX_SUBJECT))})),
        ),
        *served(
            HelperConversation,
            "Show a conversation",
            {200: answer("The conversation.", ref("HelperConversation"))},
            _OWNED,
            parameters=(_MARK,),
            ids=ID,
        ),
        *served(
            HelperUpdate,
            "Mark a conversation as read",
            {200: answer("Done.", record(success={"const": True}))},
            (*_OWNED, HttpError(415)),
            body=Body(request({"markRead": {"const": True}})),
            ids=ID,
        ),
        *served(
            HelperList,
            "List conversations",
            {
                200: answer(
                    "A page, the last written to first.",
                    record(
                        conversations=array(ref("HelperConversationSummary")),
                        nextCursor=nullable(STRING),
                    ),
                )
            },
            _MAILBOX,
            parameters=_LIST,
        ),
        *served(
            HelperUnread,
            "Count unread conversations",
            {200: answer("The number.", record(count=INTEGER))},
            _MAILBOX,
        ),
        Operation(
            HelperResume.routes[0],
            "Resume a stream",
            {204: Answer("There is none to resume.")},
            OPEN_ERRORS,
        ),
        *(
            Operation(route, "Not supported", {}, (*OPEN_ERRORS, NotFound()))
            for route in HelperUnserved.routes
        ),
    ),
    schemas=_SCHEMAS,
    errors=ErrorShape(record(error=STRING), _DIALECT.encode_error),
    credentials={_DIALECT.credentials[0]: "A session token."},
)
