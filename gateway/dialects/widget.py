"""Open Chat Widget: POST /v1/chat/stream, alias /chat, answered with NDJSON; /v1/chat at once.

    {"sessionId": …, "message": …}  ->  start, token…, done | error

`sessionId` matches `[A-Za-z0-9._:-]{1,128}` as a whole; `message` has 1 to 4000 UTF-16 code
units, as JavaScript counts. The page's own clients parse each read as whole lines, so a line is
ASCII, under 16 KiB (`done` excepted) and a body message of its own. Nothing follows the terminal
line. `/v1/chat` answers `{"conversationId", "message"}`.

`done.message` is the reply without the white space around it, as JavaScript trims; a guard's
replacement after a redirect; the agent's refusal after a block or for an empty reply.

Source: vendor's pages "POST /v1/chat/stream", "POST /v1/chat", and their server's answers.
"""

from collections.abc import Sequence
from typing import Final, assert_never

from gateway.errors import BadRequest, ErrorKind, GatewayError, HttpError
from gateway.events import (
    CitationFound,
    GuardFired,
    ModerationReported,
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.framing import ndjson
from gateway.framing.asciijson import SHORT_TEXT, dumps, pieces, quote
from gateway.messages import ChatRequest, DialectOptions, Reply, RequestHead, TurnContext
from gateway.ports.codecs import ConflictRule, Encoder
from gateway.ports.routes import CredentialSource, Route
from gateway.replies import JSON_TYPE, error_reply, http_text, row
from gateway.requests import (
    CLIENT_ID,
    bad_field,
    media_type,
    parse_json_object,
    text_member,
)

MAX_UTF16_UNITS: Final = 4000
ONE_SHOT_PATH: Final = "/v1/chat"

# What ECMAScript's String.prototype.trim takes away: WhiteSpace and LineTerminator.
_WHITE_SPACE: Final = (
    "\t\n\v\f\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)

_FAULT: Final = (500, "Internal server error")
_ERRORS: Final[dict[ErrorKind, tuple[int, str]]] = {
    "bad_request": (400, "Invalid request payload"),
    "unauthorized": (401, "Unauthorized"),
    "forbidden": (401, "Unauthorized"),
    "not_found": (404, "Not found"),
    "conflict": (409, "Conflict"),
    "payload_too_large": (413, "Invalid request payload"),
    "rate_limited": (429, "Too many requests"),
    "upstream_error": _FAULT,
    "upstream_rate_limited": _FAULT,
    "upstream_unavailable": _FAULT,
    "upstream_timeout": _FAULT,
    "overloaded": (503, "Too many requests"),
    "draining": (503, "Too many requests"),
    "store_unavailable": (503, "Too many requests"),
    "internal": _FAULT,
}

_SECURITY: Final = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
)
_STREAM_HEAD: Final = Reply(
    200,
    (
        ("content-type", ndjson.MEDIA_TYPE),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        *_SECURITY,
    ),
)
_ONE_SHOT_HEAD: Final = Reply(
    200, (("content-type", JSON_TYPE), ("cache-control", "no-store"), *_SECURITY)
)
_ERROR_LINE: Final = b'{"type":"error","error":"Internal server error"}\n'


class Widget:
    """The wire format of the embeddable chat widget."""

    name = "widget"
    routes: tuple[Route, ...] = (
        Route("POST", "/v1/chat/stream"),
        Route("POST", "/chat"),
        Route("POST", ONE_SHOT_PATH),
    )
    credentials: tuple[CredentialSource, ...] = (
        CredentialSource("x-api-key"),
        CredentialSource("x-widget-api-key"),
    )
    conflict: ConflictRule = "queue"

    def decode_request(
        self, head: RequestHead, body: bytes, options: DialectOptions
    ) -> ChatRequest:
        """The message. Raises `BadRequest`, or `HttpError` 415 for another charset."""
        # Any other type, or none, leaves the vendor's server without a payload to validate.
        if media_type(head) != "application/json":
            raise BadRequest("the content type is not application/json")
        members = parse_json_object(body)
        session_id = text_member(members, "sessionId")
        if CLIENT_ID.fullmatch(session_id) is None:
            raise bad_field("sessionId", f"must match {CLIENT_ID.pattern}")
        message = text_member(members, "message")
        if not 1 <= len(message.encode("utf-16-le")) // 2 <= MAX_UTF16_UNITS:
            raise bad_field("message", f"must have 1 to {MAX_UTF16_UNITS} UTF-16 code units")
        one_shot = head.path == ONE_SHOT_PATH
        return ChatRequest(session_id, message, framing="one-shot" if one_shot else "ndjson")

    def encoder(self, turn: TurnContext) -> Encoder:
        """An encoder for one turn."""
        return _OneShotEncoder(turn) if turn.framing == "one-shot" else _LineEncoder(turn)

    def encode_error(self, error: GatewayError) -> Reply:
        """The status and `{"error"}` with one of the documented texts."""
        status, text = _ERRORS[row(error.kind)]
        if isinstance(error, HttpError):
            status, text = error.http_status, http_text(error)
        return error_reply(error, status, {"error": text})


class _LineEncoder:
    apart = True
    ends_alone = False
    one_shot = False

    def __init__(self, turn: TurnContext) -> None:
        self._conversation = quote(turn.conversation_id)
        self._final = _FinalText(turn.refusal)

    def head(self) -> Reply:
        return _STREAM_HEAD

    def keep_alive(self) -> Sequence[bytes]:
        return (ndjson.KEEP_ALIVE,)

    def shown(self, event: TurnFinished) -> str:
        return self._final.of(event)

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TextDelta):
            text = event.text
            if len(text) <= SHORT_TEXT:
                return (f'{{"type":"token","token":{quote(text)}}}\n'.encode(),)
            return [f'{{"type":"token","token":{piece}}}\n'.encode() for piece in pieces(text)]
        if isinstance(event, TurnStarted):
            return (f'{{"type":"start","conversationId":{self._conversation}}}\n'.encode(),)
        if isinstance(event, TurnFinished):
            message = quote(self._final.of(event))
            return (
                f'{{"type":"done","message":{message},'
                f'"conversationId":{self._conversation}}}\n'.encode(),
            )
        if isinstance(event, TurnFailed):
            return (_ERROR_LINE,)
        self._final.note(event)
        return ()


class _OneShotEncoder:
    apart = False
    ends_alone = False
    one_shot = True

    def __init__(self, turn: TurnContext) -> None:
        self._conversation_id = turn.conversation_id
        self._final = _FinalText(turn.refusal)

    def head(self) -> Reply:
        return _ONE_SHOT_HEAD

    def keep_alive(self) -> Sequence[bytes]:
        return ()

    def shown(self, event: TurnFinished) -> str:
        return self._final.of(event)

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TurnFinished):
            message = self._final.of(event)
            answer = {"conversationId": self._conversation_id, "message": message}
            return (dumps(answer).encode(),)
        if isinstance(event, (TextDelta, TurnStarted, TurnFailed)):
            return ()  # the whole text comes at the end; a failure is a status of its own
        self._final.note(event)
        return ()


class _FinalText:
    """What the terminal record shows: the reply, or what a guard put in its place."""

    __slots__ = ("_instead", "_refusal")

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._instead: str | None = None

    def note(
        self,
        event: ReasoningDelta
        | ToolCallStarted
        | ToolCallDelta
        | ToolCallEnded
        | ToolReturned
        | GuardFired
        | CitationFound
        | ModerationReported
        | RoundFinished,
    ) -> None:
        """Takes an event that has no line of its own."""
        if isinstance(event, GuardFired):
            if event.action == "block":
                self._instead = self._refusal
            elif event.action == "redirect":
                self._instead = event.replacement or self._refusal
            return
        if isinstance(
            event,
            (
                ReasoningDelta,
                ToolCallStarted,
                ToolCallDelta,
                ToolCallEnded,
                ToolReturned,
                CitationFound,
                ModerationReported,
                RoundFinished,
            ),
        ):
            return  # the document has no event for any of them
        assert_never(event)

    def of(self, event: TurnFinished) -> str:
        """The text to show at the end."""
        if self._instead is not None:
            return self._instead
        return event.text.strip(_WHITE_SPACE) or self._refusal
