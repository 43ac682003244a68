"""Hyperleap's conversations: started, shown and listed; each path also below `/api`.

    POST /conversations          {aiSystem, model, …}                        -> ChatEntryResponse
    POST /conversations/persona  {personaId, personaVersionId?, …}           -> ChatEntryResponse
    GET  /conversations          ?continuationToken   -> {"data": [ChatEntryResponse × 10], …}
    GET  /conversations/{id}                                                 -> ChatEntryResponse

The last two know the conversations of the key's tenant. `personaId` is one of the tenant's
`personas`, any if it has none. `replacements` are the values of `{{name}}` in the prompt of the
agent that serves; `externalUserId`, `metadata` and `configuration` are kept and given back. The
agent decides on the model, so `aiSystem`, `model`, `systemMessage` and `dataspaceIds` choose
nothing. A ChatEntryResponse has every member, null where it is not known; of a conversation's
messages the newest 1000 (or as many as have 1 MiB characters), in a list the newest 100 (64 Ki).
Source: the vendor's OpenAPI document.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from gateway.errors import BadRequest, NotFound
from gateway.messages import (
    Conversation,
    ConversationKey,
    Message,
    Principal,
    Reply,
    RequestHead,
    Terms,
)
from gateway.neighbours.started import agent_named, json_object, json_values
from gateway.neighbours.thread import CHARACTERS, MESSAGES, newest
from gateway.ports.conversations import ConversationStore
from gateway.ports.routes import Authenticator, CredentialSource, Route
from gateway.replies import json_reply, moment
from gateway.requests import (
    bad_field,
    bounded_text,
    is_any_json,
    optional_text,
    parse_json_object,
    path_id,
    query_value,
    require_media_type,
)

DIALECT: Final = "hyperleap"
LISTED_MESSAGES: Final = 100
LISTED_CHARACTERS: Final = 65_536

PAGE: Final = 10
SYSTEMS: Final = range(7)
MAX_NAME: Final = 256


def _routes(method: str, path: str) -> tuple[Route, ...]:
    return (Route(method, path), Route(method, f"/api{path}"))


class _Conversations:
    """What every endpoint here needs. `models` maps agents to the names of their models; `now`
    reads epoch seconds."""

    dialect = DIALECT
    credentials: tuple[CredentialSource, ...] = (CredentialSource("x-hl-api-key"),)

    def __init__(
        self,
        authenticator: Authenticator,
        store: ConversationStore,
        models: Mapping[str, str],
        now: Callable[[], float],
    ) -> None:
        self.authenticator = authenticator
        self._store = store
        self._models = models
        self._now = now

    async def _entry(
        self,
        conversation: Conversation,
        principal: Principal,
        messages: int = MESSAGES,
        characters: int = CHARACTERS,
    ) -> dict[str, object]:
        """The conversation as a ChatEntryResponse, with as many of its newest messages."""
        said = await newest(self._store, conversation, messages=messages, characters=characters)
        details = conversation.terms.details
        agent = conversation.terms.agent
        model = self._models.get(agent or "", self._models[principal.agent])
        return {
            "conversationId": conversation.key.id,
            "aiSystem": None,
            "model": model,
            "personaId": details.get("personaId"),
            "personaVersionId": details.get("personaVersionId"),
            "conversationStatus": None,
            "conversationName": conversation.subject,
            "chatMessages": [_message(message) for message in said],
            "chatMessagesCount": conversation.length,
            "chatStarted": conversation.length > 0,
            "areChatMessagesInBlob": False,
            "chatMessagesBlobUri": None,
            "configuration": details.get("configuration"),
            "metadata": details.get("metadata"),
            "externalUserId": details.get("externalUserId"),
            "isActive": conversation.status_at(self._now()) == "open",
            "isDeleted": False,
            "promptTokens": None,
            "completionTokens": None,
            "totalTokens": None,
        }


class _Start(_Conversations):
    """What both ways to start have in common; `new_id` makes UUIDs."""

    def __init__(
        self,
        authenticator: Authenticator,
        store: ConversationStore,
        models: Mapping[str, str],
        *,
        now: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(authenticator, store, models, now)
        self._new_id = new_id

    async def _create(
        self,
        principal: Principal,
        members: dict[str, object],
        agent: str | None,
        details: Mapping[str, object],
    ) -> Reply:
        kept = {
            **details,
            "externalUserId": optional_text(members, "externalUserId", MAX_NAME),
            "metadata": json_object(members, "metadata"),
        }
        terms = Terms(
            agent=agent,
            variables=json_values(members, "replacements"),
            details={name: value for name, value in kept.items() if value is not None},
        )
        key = ConversationKey(principal.tenant, DIALECT, self._new_id())
        made = await self._store.create(key, owner=None, subject=None, terms=terms)
        return json_reply(200, await self._entry(made, principal))


class HyperleapStart(_Start):
    """Starts a conversation with the key's own agent."""

    routes: tuple[Route, ...] = _routes("POST", "/conversations")

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The new conversation. Raises `GatewayError`."""
        require_media_type(head, is_any_json)
        members = parse_json_object(body)
        system = members.get("aiSystem")
        if isinstance(system, bool) or system not in SYSTEMS:
            raise bad_field("aiSystem", f"must be a number from 0 to {SYSTEMS[-1]}")
        bounded_text(members, "model", MAX_NAME)
        optional_text(members, "systemMessage")
        details = {"configuration": json_object(members, "configuration")}
        return await self._create(principal, members, None, details)


class HyperleapPersona(_Start):
    """Starts a conversation with a persona. `personas` maps each tenant's ids to agents."""

    routes: tuple[Route, ...] = _routes("POST", "/conversations/persona")

    def __init__(
        self,
        authenticator: Authenticator,
        store: ConversationStore,
        models: Mapping[str, str],
        personas: Mapping[str, Mapping[str, str]],
        *,
        now: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(authenticator, store, models, now=now, new_id=new_id)
        self._personas = personas

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The new conversation. Raises `GatewayError`."""
        require_media_type(head, is_any_json)
        members = parse_json_object(body)
        persona = bounded_text(members, "personaId", MAX_NAME)
        version = optional_text(members, "personaVersionId", MAX_NAME)
        details = {"personaId": persona, "personaVersionId": version}
        agent = agent_named(persona, self._personas.get(principal.tenant, {}))
        return await self._create(principal, members, agent, details)


class HyperleapConversation(_Conversations):
    """Shows one conversation."""

    routes: tuple[Route, ...] = _routes("GET", "/conversations/{id}")

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The conversation with its newest messages. Raises `GatewayError`."""
        key = ConversationKey(principal.tenant, DIALECT, path_id(head))
        conversation = await self._store.load(key, messages=0)
        return json_reply(200, await self._entry(conversation, principal))


class HyperleapList(_Conversations):
    """Lists the tenant's conversations, ten at a time, the last written to first."""

    routes: tuple[Route, ...] = _routes("GET", "/conversations")

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """A part of the list. Raises `GatewayError`."""
        token = query_value(head, "continuationToken") or None
        try:
            page = await self._store.recent(
                principal.tenant,
                DIALECT,
                owner=None,
                limit=PAGE,
                cursor=token,
            )
        except BadRequest as error:
            raise bad_field("continuationToken", "is none that a list gave") from error
        data = []
        for conversation in page.conversations:
            with suppress(NotFound):  # deleted since the page was read
                data.append(
                    await self._entry(conversation, principal, LISTED_MESSAGES, LISTED_CHARACTERS)
                )
        return json_reply(200, {"data": data, "continuationToken": page.cursor})


def _message(message: Message) -> dict[str, object]:
    return {
        "role": message.role,
        "content": message.text,
        "toolCallId": None,
        "name": None,
        "messageId": message.id,
        "timestamp": moment(message.created_at),
        "feedbacks": None,
        "promptTokens": None,
        "completionTokens": None,
        "totalTokens": None,
        "conversationRunId": None,
    }
