"""Hyperleap chat: PATCH /conversations/{id}/chat-http2, answered with a growing JSON array.

    {"message": …}  ->  [item ,item … ,item ]

An item is a `GenAiStreamingChatChoice` with all of its members, null where there is nothing to
say; `content` is what to append. The first item has empty text, the one before `]` has none
either: it alone has a `finish_reason` ("error" for a turn that failed), with usage and citations.
`Accept: text/event-stream` or `application/x-ndjson`, or the route /chat-sse, puts the same items
into that framing. /chat answers with one `GenAiChatResponse`. Every route has the vendor's second
name and the prefix /api.

Public clients parse each read as whole items, so an item is ASCII, under 16 KiB and a body
message of its own, as is `]`; what they read together with that is lost on them. What could pass
the size is split (text, citations over several items) or cut (names, ids and a citation's own
texts).

Source: vendor's page "Continue (HTTP/2 Streaming)", OpenAPI file and page "Errors".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from gateway.dialects.hyperleap_schema import (
    choice_value,
    citation_groups,
    citation_value,
    guard_text,
    guard_value,
    moderation_value,
    tool_message,
    usage_value,
)
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
from gateway.framing import events_out, jsonarray, ndjson
from gateway.framing.asciijson import SHORT_TEXT, dumps, pieces, quote
from gateway.messages import ChatRequest, DialectOptions, Reply, RequestHead, TurnContext
from gateway.ports.codecs import ConflictRule, Encoder
from gateway.ports.routes import CredentialSource, Route
from gateway.replies import JSON_TYPE, TEXTS, error_reply, http_text, row
from gateway.requests import (
    bad_field,
    is_any_json,
    parse_json_object,
    path_id,
    require_media_type,
    text_member,
)

ROUTE_FRAMING: Final[dict[str, str | None]] = {
    "chat-http2": None,
    "continue": None,
    "chat": "one-shot",
    "continue-sync": "one-shot",
    "chat-sse": "sse",
    "continue-sse": "sse",
}
_QUALITY: Final = re.compile(r"q=([01](?:\.\d{0,3})?)")

_ROWS: Final[dict[ErrorKind, tuple[int, str]]] = {
    "bad_request": (400, "bad_request"),
    "unauthorized": (401, "unauthorized"),
    "forbidden": (403, "forbidden"),
    "not_found": (404, "not_found"),
    "conflict": (409, "conflict"),
    "payload_too_large": (413, "payload_too_large"),
    "rate_limited": (429, "rate_limited"),
    "upstream_error": (502, "upstream_error"),
    "upstream_rate_limited": (503, "upstream_rate_limited"),
    "upstream_unavailable": (503, "upstream_unavailable"),
    "upstream_timeout": (504, "upstream_timeout"),
    "overloaded": (503, "overloaded"),
    "draining": (503, "draining"),
    "store_unavailable": (503, "store_unavailable"),
    "internal": (500, "internal_server_error"),
}

_MAX_MODERATIONS: Final = 64


@dataclass(frozen=True, slots=True)
class _Framing:
    media_type: str
    first: str
    before: str
    after: str
    keep_alive: bytes
    close: tuple[bytes, ...] = ()


_FRAMINGS: Final = {
    "array": _Framing(
        jsonarray.MEDIA_TYPE,
        jsonarray.FIRST,
        jsonarray.BEFORE,
        jsonarray.AFTER,
        jsonarray.KEEP_ALIVE,
        (jsonarray.CLOSE,),
    ),
    "sse": _Framing(
        events_out.MEDIA_TYPE,
        events_out.BEFORE,
        events_out.BEFORE,
        events_out.AFTER,
        events_out.KEEP_ALIVE,
    ),
    "ndjson": _Framing(
        ndjson.MEDIA_TYPE, ndjson.BEFORE, ndjson.BEFORE, ndjson.AFTER, ndjson.KEEP_ALIVE
    ),
}
_ACCEPTED: Final = {
    "application/json": "array",
    "text/json": "array",
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
}


class Hyperleap:
    """The wire format of Hyperleap's conversation clients."""

    name = "hyperleap"
    routes: tuple[Route, ...] = tuple(
        Route("PATCH", f"{prefix}/conversations/{{id}}/{word}")
        for prefix in ("", "/api")
        for word in ROUTE_FRAMING
    )
    credentials: tuple[CredentialSource, ...] = (CredentialSource("x-hl-api-key"),)
    conflict: ConflictRule = "reject"

    def decode_request(
        self, head: RequestHead, body: bytes, options: DialectOptions
    ) -> ChatRequest:
        """The message. Raises `NotFound`, `BadRequest`, or `HttpError` 415."""
        conversation_id = path_id(head)
        require_media_type(head, is_any_json)
        text = text_member(parse_json_object(body), "message")
        if not text:
            raise bad_field("message", "must not be empty")
        framing = ROUTE_FRAMING.get(head.path.rpartition("/")[2]) or _accepted_framing(head)
        return ChatRequest(conversation_id, text, framing)

    def encoder(self, turn: TurnContext) -> Encoder:
        """An encoder for one turn."""
        if turn.framing == "one-shot":
            return _OneShotEncoder(turn)
        return _ItemEncoder(turn, _FRAMINGS[turn.framing])

    def encode_error(self, error: GatewayError) -> Reply:
        """The status and `{"error": {"code", "message", "details"?}}`."""
        kind = row(error.kind)
        status, code = _ROWS[kind]
        body: dict[str, object] = {"code": code, "message": TEXTS[kind]}
        if isinstance(error, HttpError):
            status = error.http_status
            code = "not_found" if status == 404 else code
            body = {"code": code, "message": http_text(error)}
        if isinstance(error, BadRequest) and error.issues:
            body["details"] = [{"field": it.field, "issue": it.issue} for it in error.issues]
        return error_reply(error, status, {"error": body})


class _ItemEncoder:
    apart = True
    one_shot = False

    def __init__(self, turn: TurnContext, framing: _Framing) -> None:
        self._turn = turn
        self._framing = framing
        self.ends_alone = bool(framing.close)
        self._opened = False
        self._spoke = False
        token = dumps(self._item({"content": "\0"}))
        before, _, after = token.partition(quote("\0"))
        self._before_text = framing.before + before
        self._after_text = after + framing.after

    def head(self) -> Reply:
        return _head(self._framing.media_type, "no-cache, no-transform")

    def keep_alive(self) -> Sequence[bytes]:
        return (self._framing.keep_alive,) if self._opened else self._open()

    def shown(self, event: TurnFinished) -> str:
        return event.text

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TextDelta):
            self._spoke = True
            if len(event.text) <= SHORT_TEXT:
                quoted = quote(event.text)
                return (f"{self._before_text}{quoted}{self._after_text}".encode(),)
            return self._text(event.text)
        if isinstance(event, TurnStarted):
            return () if self._opened else self._open()
        if isinstance(event, TurnFinished):
            return self._finish(event)
        if isinstance(event, TurnFailed):
            return self._end("error", None, None)
        if isinstance(event, GuardFired):
            return self._guard(event)
        if isinstance(event, ModerationReported):
            return (self._framed({}, moderation=[moderation_value(event)]),)
        if isinstance(event, ToolCallEnded):
            return self._tool_call(event) if self._turn.options.tool_results else ()
        if isinstance(event, ToolReturned):
            return self._tool_result(event) if self._turn.options.tool_results else ()
        if isinstance(event, (ReasoningDelta, ToolCallStarted, ToolCallDelta, RoundFinished)):
            return ()  # the schema has no member for any of them
        if isinstance(event, CitationFound):
            return ()  # the last items carry them all
        assert_never(event)

    def _open(self) -> tuple[bytes]:
        self._opened = True
        opening = dumps(self._item({}))
        return (f"{self._framing.first}{opening}{self._framing.after}".encode(),)

    def _finish(self, event: TurnFinished) -> list[bytes]:
        groups = citation_groups(event.citations)
        early = [self._framed({}, citations=group) for group in groups[:-1]]
        return [*early, *self._end(event.reason, usage_value(event.usage), groups[-1])]

    def _end(
        self, reason: str, usage: dict[str, int] | None, citations: list[object] | None
    ) -> list[bytes]:
        last = self._item({}, reason=reason, citations=citations)
        last["usage"] = usage
        return [self._frame(last), *self._framing.close]

    def _guard(self, event: GuardFired) -> list[bytes]:
        text = guard_text(event, self._turn.refusal)
        if text and self._spoke:
            text = "\n\n" + text
        return [*self._text(text), self._framed({}, moderation=[guard_value(event)])]

    def _tool_call(self, event: ToolCallEnded) -> list[bytes]:
        return [self._framed(tool_message("assistant", event.call_id, event.name))]

    def _tool_result(self, event: ToolReturned) -> list[bytes]:
        message = tool_message("tool", event.call_id, event.name)
        return self._content(event.result, message)

    def _text(self, text: str) -> list[bytes]:
        return self._content(text, {}) if text else []

    def _content(self, text: str, message: dict[str, object]) -> list[bytes]:
        before, _, after = self._framed(message | {"content": "\0"}).partition(b'"\\u0000"')
        return [before + piece.encode() + after for piece in pieces(text)]

    def _framed(
        self,
        message: dict[str, object],
        *,
        moderation: list[object] | None = None,
        citations: list[object] | None = None,
    ) -> bytes:
        return self._frame(self._item(message, moderation=moderation, citations=citations))

    def _frame(self, item: dict[str, object]) -> bytes:
        return f"{self._framing.before}{dumps(item)}{self._framing.after}".encode()

    def _item(
        self,
        message: dict[str, object],
        *,
        reason: str | None = None,
        moderation: list[object] | None = None,
        citations: list[object] | None = None,
    ) -> dict[str, object]:
        return {
            "choice": choice_value(message, reason, moderation),
            "usage": None,
            "messageId": self._turn.message_id,
            "runId": self._turn.run_id,
            "citations": citations,
        }


class _OneShotEncoder:
    apart = False
    ends_alone = False
    one_shot = True

    def __init__(self, turn: TurnContext) -> None:
        self._turn = turn
        self._instead: str | None = None
        self._moderation: list[object] = []

    def head(self) -> Reply:
        return _head(JSON_TYPE, "no-store")

    def keep_alive(self) -> Sequence[bytes]:
        return ()

    def shown(self, event: TurnFinished) -> str:
        return event.text if self._instead is None else self._instead

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TurnFinished):
            return (dumps(self._answer(event)).encode(),)
        if isinstance(event, GuardFired):
            self._note(guard_value(event))
            self._instead = guard_text(event, self._turn.refusal) or self._instead
            return ()
        if isinstance(event, ModerationReported):
            self._note(moderation_value(event))
            return ()
        if isinstance(event, (TextDelta, CitationFound, TurnStarted, TurnFailed)):
            return ()  # the whole text comes at the end; a failure is a status of its own
        if isinstance(
            event,
            (
                ReasoningDelta,
                ToolCallStarted,
                ToolCallDelta,
                ToolCallEnded,
                ToolReturned,
                RoundFinished,
            ),
        ):
            return ()  # the answer has no member for any of them
        assert_never(event)

    def _note(self, result: object) -> None:
        if len(self._moderation) < _MAX_MODERATIONS:
            self._moderation.append(result)

    def _answer(self, event: TurnFinished) -> dict[str, object]:
        turn, text = self._turn, self.shown(event)
        return {
            "id": turn.turn_id,
            "object": "chat.completion",
            "usage": usage_value(event.usage),
            "created": turn.created_at,
            "choices": [choice_value({"content": text}, event.reason, self._moderation or None)],
            "messageId": turn.message_id,
            "runId": turn.run_id,
            "httpRequestId": turn.turn_id,
            "citations": [citation_value(found) for found in event.citations],
            "prompt_moderations": None,
        }


def _head(media_type: str, cache_control: str) -> Reply:
    return Reply(
        200,
        (
            ("content-type", media_type),
            ("cache-control", cache_control),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
        ),
    )


def _accepted_framing(head: RequestHead) -> str:
    """The framing that `Accept` likes best; between equals the one it names first."""
    best, framing = 0.0, "array"
    for entry in ",".join(head.headers.all("accept")).split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if name not in _ACCEPTED:
            continue
        qualities = [match for part in parameters if (match := _QUALITY.fullmatch(part))]
        quality = float(qualities[0][1]) if qualities else 1.0
        if quality > best:
            best, framing = quality, _ACCEPTED[name]
    return framing
