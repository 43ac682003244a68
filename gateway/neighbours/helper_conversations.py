"""A Helper client's conversations: started, read and listed by the visitor whose they are.

    POST  /api/chat/conversation         {subject?}        -> {"conversationSlug"}
    GET   /api/chat/conversation/{slug}  ?markRead=true    -> {"slug", "subject", "messages", …}
    PATCH /api/chat/conversation/{slug}  {markRead: true}  -> {"success": true}
    GET   /api/chat/conversations        ?cursor&limit     -> {"conversations", "nextCursor"}
    GET   /api/chat/conversations/unread                   -> {"count"}

All with a session token; each conversation belongs to the token's identity. A conversation is
unread while it has messages that came after it was last read; reading it whole marks it, unless
`markRead=false` says not to. A list has 20 conversations a page, or `limit` of 1 to 100, the last
written to first. A conversation is shown with its newest 1000 messages, or as many of them as have
1 MiB characters; a preview is cut to its beginning. An empty `cursor` or `limit` is a missing one.
Nobody but a model answers here, so there are no staff, reactions, attachments or escalations.
Source: `@helperai/client` 0.4.5 and its schemas.
"""

import re
import secrets
import string
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway.access.ownership import check_owner
from gateway.access.session_tokens import DIALECT
from gateway.errors import NotFound
from gateway.messages import Conversation, ConversationKey, Message, Principal, Reply, RequestHead
from gateway.neighbours.thread import newest
from gateway.ports.conversations import ConversationStore
from gateway.ports.routes import Admit, Authenticator, CredentialSource, Route
from gateway.replies import json_reply, moment
from gateway.requests import (
    CLIENT_ID,
    bad_field,
    is_json,
    optional_text,
    parse_json_object,
    query_value,
    require_media_type,
)

PREVIEW_CHARACTERS: Final = 1000

_SLUG_ALPHABET: Final = string.ascii_lowercase + string.digits
_SLUG_LENGTH: Final = 20
MAX_SUBJECT: Final = 1000
PAGE: Final = 20
MAX_LIMIT: Final = 100

_LIMIT: Final = re.compile(r"[1-9][0-9]{0,8}")
_NO_SUBJECT: Final = "(no subject)"


def random_slug() -> str:
    """A conversation's slug: 20 of `[a-z0-9]`, 103 random bits."""
    return "".join(secrets.choice(_SLUG_ALPHABET) for _ in range(_SLUG_LENGTH))


class _Visitors:
    """What every endpoint here needs: the visitors' tokens, and the store."""

    dialect = DIALECT
    credentials: tuple[CredentialSource, ...] = (CredentialSource("authorization", bearer=True),)

    def __init__(self, authenticator: Authenticator, store: ConversationStore) -> None:
        self.authenticator = authenticator
        self._store = store

    async def _own(self, head: RequestHead, principal: Principal) -> Conversation:
        """The conversation of the path, without messages. Raises `NotFound` and `NotOwner`."""
        slug = head.params["slug"]
        if CLIENT_ID.fullmatch(slug) is None:
            raise NotFound("the slug is malformed")
        key = ConversationKey(principal.tenant, DIALECT, slug)
        conversation = await self._store.load(key, messages=0)
        check_owner(conversation, principal)
        return conversation

    async def _mark_read(self, conversation: Conversation) -> None:
        if conversation.read < conversation.length:
            await self._store.mark_read(conversation.key, conversation.length)


class HelperStart(_Visitors):
    """Starts a conversation; `new_slug` makes slugs that cannot be guessed."""

    routes: tuple[Route, ...] = (Route("POST", "/api/chat/conversation"),)

    def __init__(
        self,
        authenticator: Authenticator,
        store: ConversationStore,
        *,
        new_slug: Callable[[], str] = random_slug,
    ) -> None:
        super().__init__(authenticator, store)
        self._new_slug = new_slug

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The new conversation's slug. Raises `GatewayError`."""
        require_media_type(head, is_json)
        subject = optional_text(parse_json_object(body), "subject", MAX_SUBJECT)
        slug = self._new_slug()
        key = ConversationKey(principal.tenant, DIALECT, slug)
        await self._store.create(key, owner=principal.identity, subject=subject)
        return json_reply(200, {"conversationSlug": slug})


class HelperConversation(_Visitors):
    """Shows one conversation."""

    routes: tuple[Route, ...] = (Route("GET", "/api/chat/conversation/{slug}"),)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The conversation, whose messages are read from then on. Raises `GatewayError`."""
        mark = query_value(head, "markRead") != "false"
        conversation = await self._own(head, principal)
        messages = await newest(self._store, conversation)
        if mark:
            await self._mark_read(conversation)
        return json_reply(
            200,
            {
                "slug": conversation.key.id,
                "subject": conversation.subject,
                "isEscalated": False,
                "messages": [_message(it) for it in messages if it.role != "system"],
                "experimental_guideSessions": [],
            },
        )


class HelperUpdate(_Visitors):
    """Marks one conversation as read."""

    routes: tuple[Route, ...] = (Route("PATCH", "/api/chat/conversation/{slug}"),)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """That it was done. Raises `GatewayError`."""
        require_media_type(head, is_json)
        if parse_json_object(body).get("markRead") is not True:
            raise bad_field("markRead", "must be true")
        await self._mark_read(await self._own(head, principal))
        return json_reply(200, {"success": True})


class HelperList(_Visitors):
    """Lists the visitor's conversations."""

    routes: tuple[Route, ...] = (Route("GET", "/api/chat/conversations"),)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """A page of the list. Raises `GatewayError`."""
        asked = query_value(head, "limit") or None
        if asked is not None and (not _LIMIT.fullmatch(asked) or int(asked) > MAX_LIMIT):
            raise bad_field("limit", f"must be a number from 1 to {MAX_LIMIT}")
        page = await self._store.recent(
            principal.tenant,
            DIALECT,
            owner=principal.identity,
            limit=PAGE if asked is None else int(asked),
            cursor=query_value(head, "cursor") or None,
            messages=1,
        )
        conversations = [_summary(conversation) for conversation in page.conversations]
        return json_reply(200, {"conversations": conversations, "nextCursor": page.cursor})


class HelperUnread(_Visitors):
    """Counts the visitor's unread conversations."""

    routes: tuple[Route, ...] = (Route("GET", "/api/chat/conversations/unread"),)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The number. Raises `GatewayError`."""
        count = await self._store.count(
            principal.tenant, DIALECT, owner=principal.identity, unread=True
        )
        return json_reply(200, {"count": count})


class HelperResume:
    """`GET /api/chat/{id}/stream`: an AI SDK client (5 and later) asks for a stream to resume.

    There never is one: 204, which the client reads as that.
    """

    dialect = DIALECT
    routes: tuple[Route, ...] = (Route("GET", "/api/chat/{id}/stream"),)

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """The whole answer."""
        return Reply(204, (("cache-control", "no-store"),))


class HelperUnserved:
    """What the client can ask of Helper beyond a chat, and not of this gateway.

    The routes exist so that a page of another origin can read the answer.
    """

    dialect = DIALECT
    routes: tuple[Route, ...] = (
        Route("POST", "/api/chat/conversation/{slug}/message"),
        Route("POST", "/api/chat/conversation/{slug}/message/{id}"),
        Route("POST", "/api/chat/conversation/{slug}/message/{id}/event"),
        Route("POST", "/api/chat/contact"),
    )

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """404."""
        reply = json_reply(404, {"error": "Not supported"})
        return replace(reply, refused="not_found")


def _message(message: Message) -> dict[str, object]:
    return {
        "id": message.id,
        "role": message.role,
        "content": message.text,
        "createdAt": moment(message.created_at),
        "staffName": None,
        "reactionType": None,
        "reactionFeedback": None,
        "reactionCreatedAt": None,
        "publicAttachments": [],
        "privateAttachments": [],
    }


def _summary(conversation: Conversation) -> dict[str, object]:
    latest = conversation.messages[-1] if conversation.messages else None
    return {
        "slug": conversation.key.id,
        "subject": conversation.subject or _NO_SUBJECT,
        "createdAt": moment(conversation.created_at),
        "latestMessage": latest.text[:PREVIEW_CHARACTERS] if latest else None,
        "latestMessageAt": moment(latest.created_at) if latest else None,
        "messageCount": conversation.length,
        "isEscalated": False,
        "isUnread": conversation.length > conversation.read,
    }
