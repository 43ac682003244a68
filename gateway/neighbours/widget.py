"""The widget's own liveness answer, and the conversations that its operators read.

    GET /health                        -> {"status": "ok"}, without a key
    GET /v1/admin/conversations        ?limit=1..200  -> {"conversations", "total"}
    GET /v1/admin/conversations/{id}   -> {"conversation", "messages"}

The admin routes take `x-admin-api-key`, one of the tenants' `admin_key`s, which shows that tenant's
conversations, the last written to first. `_id` is the `conversationId` that visitors are told;
times are milliseconds. A thread has its newest 1000 messages, or as many of them as have 1 MiB
characters. Source: Open Chat Widget, backend `server.ts`; the texts of errors are those that its
server gives.
"""

import re
from dataclasses import replace
from typing import Final

from gateway.errors import BadRequest, ErrorKind, NotFound
from gateway.messages import Conversation, Message, Principal, Reply, RequestHead
from gateway.neighbours.thread import newest
from gateway.ports.conversations import ConversationStore
from gateway.ports.routes import Admit, Authenticator, CredentialSource, Route
from gateway.replies import json_reply
from gateway.requests import query_value

DIALECT: Final = "widget"
PREVIEW_CHARACTERS: Final = 500

_LIST: Final = Route("GET", "/v1/admin/conversations")
_THREAD: Final = Route("GET", "/v1/admin/conversations/{id}")
_LIMIT: Final = re.compile(r"0*([1-9][0-9]{0,8})")
MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 100
MAX_ID: Final = 128
_LATER_S: Final = "3600"


class WidgetHealth:
    """`{"status":"ok"}` while the event loop runs."""

    dialect = DIALECT
    routes: tuple[Route, ...] = (Route("GET", "/health"),)

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """The whole answer."""
        return json_reply(200, {"status": "ok"})


class WidgetAdminOff:
    """The admin routes of a gateway where no tenant has an admin key."""

    dialect = DIALECT
    routes: tuple[Route, ...] = (_LIST, _THREAD)

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """503, as the vendor's server says it."""
        body_of = {"error": "ADMIN_API_KEY is not configured on this deployment"}
        reply = json_reply(503, body_of, (("retry-after", _LATER_S),))
        return replace(reply, refused="not_found")


class _Admin:
    """What both admin routes need."""

    dialect = DIALECT
    credentials: tuple[CredentialSource, ...] = (CredentialSource("x-admin-api-key"),)

    def __init__(self, authenticator: Authenticator, store: ConversationStore) -> None:
        self.authenticator = authenticator
        self._store = store


class WidgetList(_Admin):
    """Lists the tenant's conversations."""

    routes: tuple[Route, ...] = (_LIST,)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The newest of them and how many there are. Raises `GatewayError`."""
        try:
            limit = query_value(head, "limit")
        except BadRequest:
            limit = ""
        digits = _LIMIT.fullmatch(str(DEFAULT_LIMIT) if limit is None else limit)
        if digits is None or int(digits[1]) > MAX_LIMIT:
            return _refusal(400, "Invalid query parameters")
        tenant = principal.tenant
        page = await self._store.recent(
            tenant, DIALECT, owner=None, limit=int(digits[1]), messages=1
        )
        total = await self._store.count(tenant, DIALECT, owner=None)
        conversations = [_summary(conversation) for conversation in page.conversations]
        return json_reply(200, {"conversations": conversations, "total": total})


class WidgetThread(_Admin):
    """Shows one conversation."""

    routes: tuple[Route, ...] = (_THREAD,)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The conversation and its messages. Raises `GatewayError`."""
        public_id = head.params["id"]
        if len(public_id) > MAX_ID:
            return _refusal(400, "Invalid conversationId")
        try:
            conversation = await self._store.find(principal.tenant, DIALECT, public_id, messages=1)
            said = await newest(self._store, conversation)
        except NotFound:
            return _refusal(404, "Conversation not found")
        messages = [_message(message) for message in said]
        return json_reply(200, {"conversation": _summary(conversation), "messages": messages})


def _refusal(status: int, text: str) -> Reply:
    kind: ErrorKind = "not_found" if status == 404 else "bad_request"
    return replace(json_reply(status, {"error": text}), refused=kind)


def _summary(conversation: Conversation) -> dict[str, object]:
    messages = conversation.messages
    return {
        "_id": conversation.public_id,
        "_creationTime": conversation.created_at * 1000,
        "sessionId": conversation.key.id,
        "createdAt": _milliseconds(conversation.created_at),
        "updatedAt": _milliseconds(conversation.updated_at),
        "lastMessage": messages[-1].text[:PREVIEW_CHARACTERS] if messages else "",
    }


def _message(message: Message) -> dict[str, object]:
    return {
        "_id": message.id,
        "role": message.role,
        "content": message.text,
        "createdAt": _milliseconds(message.created_at),
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
