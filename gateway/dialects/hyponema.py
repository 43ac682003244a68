"""Hyponema chat: POST /sessions/{id}/messages, answered with named server-sent events.

    {"text": …}  ->  turn_start, (token | tool_call | tool_result | guard)…, turn_end | error

Text has 1 to 8000 characters (code points). JSON is ASCII, one line per event. Nothing follows
the terminal event. Source: vendor's page "Chat API"; error bodies repeat the two members of its
`error` event.

`arguments_partial` is the whole argument text so far. Past `_EVERY_SNAPSHOT` characters a
snapshot is sent only when it has grown by an eighth, or the bytes would grow with the square of
the arguments; the last one is always whole.
"""

from collections.abc import Sequence
from typing import Final, assert_never

import orjson

from gateway.errors import ErrorKind, GatewayError, HttpError
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
from gateway.framing import events_out
from gateway.framing.asciijson import dumps, json_or_string, quote
from gateway.messages import ChatRequest, DialectOptions, Reply, RequestHead, TurnContext
from gateway.ports.codecs import ConflictRule, Encoder
from gateway.ports.routes import CredentialSource, Route
from gateway.replies import TEXTS, error_reply, http_text, row
from gateway.requests import (
    bad_field,
    is_json,
    parse_json_object,
    path_id,
    require_media_type,
    text_member,
)

MAX_CHARACTERS: Final = 8000
_EVERY_SNAPSHOT: Final = 512

_STATUS: Final[dict[ErrorKind, int]] = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "payload_too_large": 413,
    "rate_limited": 429,
    "upstream_error": 502,
    "upstream_rate_limited": 503,
    "upstream_unavailable": 503,
    "upstream_timeout": 504,
    "overloaded": 503,
    "draining": 503,
    "store_unavailable": 503,
    "internal": 500,
}

_HEAD: Final = Reply(
    200,
    (
        ("content-type", events_out.MEDIA_TYPE),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ),
)


class Hyponema:
    """The wire format of Hyponema's chat clients."""

    name = "hyponema"
    routes: tuple[Route, ...] = (Route("POST", "/sessions/{id}/messages"),)
    credentials: tuple[CredentialSource, ...] = (CredentialSource("authorization", bearer=True),)
    conflict: ConflictRule = "reject"

    def decode_request(
        self, head: RequestHead, body: bytes, options: DialectOptions
    ) -> ChatRequest:
        """The message. Raises `NotFound`, `BadRequest`, or `HttpError` 415."""
        session_id = path_id(head)
        require_media_type(head, is_json)
        text = text_member(parse_json_object(body), "text")
        if not 1 <= len(text) <= MAX_CHARACTERS:
            raise bad_field("text", f"must have 1 to {MAX_CHARACTERS} characters")
        return ChatRequest(session_id, text, framing="sse")

    def encoder(self, turn: TurnContext) -> Encoder:
        """An encoder for one turn."""
        return _EventEncoder(turn)

    def encode_error(self, error: GatewayError) -> Reply:
        """The status and `{"detail", "error_kind"}`."""
        kind = row(error.kind)
        status, text = _STATUS[kind], TEXTS[kind]
        if isinstance(error, HttpError):
            status, text = error.http_status, http_text(error)
            kind = "not_found" if status == 404 else kind
        headers = (("www-authenticate", "Bearer"),) if status == 401 else ()
        return error_reply(error, status, {"detail": text, "error_kind": kind}, headers)


class _EventEncoder:
    apart = False
    ends_alone = False
    one_shot = False

    def __init__(self, turn: TurnContext) -> None:
        self._turn = turn
        self._calls: dict[str, _Arguments] = {}

    def head(self) -> Reply:
        return _HEAD

    def keep_alive(self) -> Sequence[bytes]:
        return (events_out.KEEP_ALIVE,)

    def shown(self, event: TurnFinished) -> str:
        return event.text

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TextDelta):
            return (f'event: token\ndata: {{"text":{quote(event.text)}}}\n\n'.encode(),)
        if isinstance(event, (ToolCallStarted, ToolCallDelta, ToolCallEnded)):
            return self._tool_call(event)
        if isinstance(event, ToolReturned):
            return (_tool_result(event),)
        if isinstance(event, GuardFired):
            return (_guard(event),)
        if isinstance(event, TurnStarted):
            started = {"turn_id": self._turn.turn_id, "model": event.model or self._turn.model}
            return (events_out.event("turn_start", dumps(started)),)
        if isinstance(event, TurnFinished):
            return (self._turn_end(event),)
        if isinstance(event, TurnFailed):
            failed = {"detail": TEXTS[event.kind], "error_kind": event.kind}
            return (events_out.event("error", dumps(failed)),)
        if isinstance(event, (ReasoningDelta, CitationFound, ModerationReported, RoundFinished)):
            return ()  # the document has no event for any of them
        assert_never(event)

    def _tool_call(self, event: ToolCallStarted | ToolCallDelta | ToolCallEnded) -> list[bytes]:
        if isinstance(event, ToolCallStarted):
            call = self._calls[event.call_id] = _Arguments(event.name)
            snapshot: str | None = ""
        elif isinstance(event, ToolCallDelta):
            call = self._calls[event.call_id]
            snapshot = call.grow(event.arguments)
        else:
            call = self._calls.pop(event.call_id)
            snapshot = call.whole(event.arguments)
        if snapshot is None:
            return []
        data = {"call_id": event.call_id, "name": call.name, "arguments_partial": snapshot}
        return [events_out.event("tool_call", dumps(data))]

    def _turn_end(self, event: TurnFinished) -> bytes:
        usage = event.usage
        ended = {
            "turn_id": self._turn.turn_id,
            "latency_ms": event.latency_ms,
            "prompt_tokens": usage.input_tokens if usage else None,
            "completion_tokens": usage.output_tokens if usage else None,
        }
        return events_out.event("turn_end", dumps(ended))


class _Arguments:
    """One call's arguments, and how many characters of them the client has seen."""

    __slots__ = ("_length", "_parts", "_shown", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts: list[str] = []
        self._length = 0
        self._shown = 0

    def grow(self, fragment: str) -> str | None:
        self._parts.append(fragment)
        self._length += len(fragment)
        if self._length - self._shown <= max(0, (self._shown - _EVERY_SNAPSHOT) // 8):
            return None
        return self._joined()

    def whole(self, arguments: str) -> str | None:
        # A client may hold an older snapshot against this one: each has to begin with the former.
        if len(arguments) == self._shown or not arguments.startswith(self._joined()):
            return None
        return arguments

    def _joined(self) -> str:
        text = "".join(self._parts)
        self._parts = [text]
        self._shown = self._length
        return text


def _tool_result(event: ToolReturned) -> bytes:
    result = json_or_string(event.result)
    if event.outcome != "ok" and not _has_error(event.result):
        result = f'{{"error":{result}}}'
    return events_out.event(
        "tool_result",
        f'{{"call_id":{quote(event.call_id)},"name":{quote(event.name)},'
        f'"arguments":{json_or_string(event.arguments)},"result":{result},'
        f'"latency_ms":{event.latency_ms}}}',
    )


def _has_error(result: str) -> bool:
    try:
        value = orjson.loads(result)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and "error" in value


def _guard(event: GuardFired) -> bytes:
    fired = {
        "kind": event.kind,
        "action": event.action,
        "detail": event.detail,
        "replacement": event.replacement if event.action == "redirect" else None,
    }
    return events_out.event("guard", dumps(fired))
