"""Helper chat: POST /api/chat, answered in one of the AI SDK's two stream protocols.

    {"message": {"role", "content" | "parts", "id"?}, "conversationSlug"}
      ->  data stream (AI SDK 4):         f (0 | g | 9 | a)… e  [f … e]…  d  h… 8
      ->  UI message stream (AI SDK 5+):  start, start-step, …, finish-step, finish, [DONE]

Any text will do, even an empty one; attachments are refused. The request tells which protocol
its client reads: `_framing` has the rules, `helper_streams` the records. Source: vendor's page
"Chat API", and what the AI SDK's clients post.
"""

import re
from typing import Final, Literal

from gateway.dialects.helper_results import tool_results
from gateway.dialects.helper_streams import DataStream, UiMessages
from gateway.errors import (
    BadRequest,
    ErrorKind,
    GatewayError,
    HttpError,
    MailboxNotFound,
    NotFound,
    NotOwner,
)
from gateway.messages import (
    ChatRequest,
    DialectOptions,
    Headers,
    Reply,
    RequestHead,
    TurnContext,
)
from gateway.ports.codecs import ConflictRule, Encoder
from gateway.ports.routes import CredentialSource, Route
from gateway.replies import error_reply, http_text, row
from gateway.requests import (
    CLIENT_ID,
    bad_field,
    is_json,
    parse_json_object,
    require_media_type,
    text_member,
)

DATA_STREAM: Final = "data-stream"
EARLY_DATA_STREAM: Final = "data-stream-early"
UI_MESSAGE_STREAM: Final = "ui-message-stream"

MAX_MESSAGE_ID: Final = 256
_EVENT_STREAM: Final = "text/event-stream"
_QUALITY_ZERO: Final = re.compile(r"\bq\s*=\s*0(\.0*)?\s*(;|$)", re.IGNORECASE)
_NO_ATTACHMENTS: Final = "attachments are not supported"
_FAULT: Final = (500, "Internal server error")
_UNAVAILABLE: Final = (503, "Service unavailable")
_ERRORS: Final[dict[ErrorKind, tuple[int, str]]] = {
    "bad_request": (400, "Invalid request"),
    "unauthorized": (401, "Invalid token"),
    "forbidden": (401, "Unauthorized"),
    "not_found": (404, "Conversation not found"),
    "conflict": (409, "Conversation is busy"),
    "payload_too_large": (413, "Message too large"),
    "rate_limited": (429, "Too many requests"),
    "upstream_error": _FAULT,
    "upstream_rate_limited": _FAULT,
    "upstream_unavailable": _FAULT,
    "upstream_timeout": _FAULT,
    "overloaded": _UNAVAILABLE,
    "draining": _UNAVAILABLE,
    "store_unavailable": _UNAVAILABLE,
    "internal": _FAULT,
}


class AttachmentsRefused(BadRequest):
    """The message carries a file."""


class Helper:
    """The wire format of Helper's chat clients."""

    name = "helper"
    routes: tuple[Route, ...] = (Route("POST", "/api/chat"),)
    credentials: tuple[CredentialSource, ...] = (CredentialSource("authorization", bearer=True),)
    conflict: ConflictRule = "reject"

    def decode_request(
        self, head: RequestHead, body: bytes, options: DialectOptions
    ) -> ChatRequest:
        """The message. Raises `BadRequest`, `NotFound` for a slug that can be none, or
        `HttpError` 415."""
        require_media_type(head, is_json)
        members = parse_json_object(body)
        message = members.get("message")
        if not isinstance(message, dict):
            raise bad_field("message", "must be an object")
        role = _role(message.get("role"))
        text = _text(message)
        message_id = _message_id(message.get("id"))
        slug = text_member(members, "conversationSlug")
        if CLIENT_ID.fullmatch(slug) is None:
            raise NotFound("the conversation slug is malformed")
        return ChatRequest(
            slug,
            text,
            framing=_framing(head.headers, members, message, options),
            message_id=message_id,
            role=role,
            continues=message_id if role == "assistant" else None,
            results=tool_results(message) if role == "assistant" else {},
        )

    def encoder(self, turn: TurnContext) -> Encoder:
        """An encoder for one turn."""
        if turn.framing == UI_MESSAGE_STREAM:
            return UiMessages(turn)
        return DataStream(turn, early=turn.framing == EARLY_DATA_STREAM)

    def encode_error(self, error: GatewayError) -> Reply:
        """The status and `{"error"}` with one of the documented texts."""
        status, text = _ERRORS[row(error.kind)]
        if isinstance(error, MailboxNotFound):
            text = "Mailbox not found"
        elif isinstance(error, NotOwner):
            text = "Unauthorized"
        elif isinstance(error, AttachmentsRefused):
            text = _NO_ATTACHMENTS
        elif isinstance(error, HttpError):
            status, text = error.http_status, http_text(error)
        headers = (("www-authenticate", "Bearer"),) if status == 401 else ()
        return error_reply(error, status, {"error": text}, headers)


def _role(value: object) -> Literal["user", "assistant"]:
    if value == "user":
        return "user"
    if value == "assistant":
        return "assistant"
    raise bad_field("message.role", 'must be "user" or "assistant"')


def _text(message: dict[str, object]) -> str:
    """`content`, or what the text parts say if it is missing or empty; any text will do."""
    parts = message.get("parts")
    if parts is not None and not isinstance(parts, list):
        raise bad_field("message.parts", "must be an array")
    texts: list[str] = []
    for part in parts or ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(text_member(part, "text", "message.parts.text"))
        elif kind == "file":
            raise AttachmentsRefused(_NO_ATTACHMENTS)
    if message.get("experimental_attachments"):
        raise AttachmentsRefused(_NO_ATTACHMENTS)
    content = message.get("content")
    if content is None and parts is not None:
        return "".join(texts)
    return text_member(message, "content", "message.content") or "".join(texts)


def _message_id(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_MESSAGE_ID or not value.isprintable():
        raise bad_field("message.id", f"must be a string of at most {MAX_MESSAGE_ID} characters")
    return value


def _framing(
    headers: Headers,
    members: dict[str, object],
    message: dict[str, object],
    options: DialectOptions,
) -> str:
    """The protocol that the client reads; clients do not name it, but their bodies differ."""
    # AI SDK 4 posts its message with all that it keeps of it; version 5 has `parts` only.
    kept = message.keys() & {"parts", "createdAt", "toolInvocations"}
    chosen: str = options.stream_format
    if chosen == "auto":
        fourth = (kept and isinstance(message.get("content"), str)) or (
            "customerSpecificTools" in members
        )
        chosen = DATA_STREAM if fourth and not _accepts_events(headers) else UI_MESSAGE_STREAM
    # Messages have had `parts` since `ui-utils` 1.1.10; before, it fails for what 4.0 did not know.
    early = chosen == DATA_STREAM and bool(kept) and "parts" not in kept
    return EARLY_DATA_STREAM if early else chosen


def _accepts_events(headers: Headers) -> bool:
    """Whether `Accept` names server-sent events (RFC 9110, section 12.5.1)."""
    for choice in ",".join(headers.all("accept")).split(","):
        name, _, parameters = choice.partition(";")
        if name.strip().lower() == _EVENT_STREAM:
            return _QUALITY_ZERO.search(parameters) is None
    return False
