"""Hyponema's sessions, which its clients may make before they chat.

    POST /sessions           {agent_id, user_id, modality?, dynamic_variables?, ttl_seconds?}
    GET  /sessions/{id}      -> {"id", "status", "ws_url", "chat_url"}
    POST /sessions/{id}/end  {"status": "completed" | "failed", "reason"?}  -> the same

A new session is answered 201, with `token` and `expires_at` as well. Addresses and token are null:
they are for WebSockets, and there are none here. `agent_id` is one of the tenant's `agents`, any
if it has none; `dynamic_variables` are the values of `{{name}}` in that agent's prompt. With
`ttl_seconds` (at most an hour counts) the session ends by itself; without, `expires_at` is an hour
away, as the vendor's token would last, and the session stays open. The status is `pending` until
the first exchange, then `in_progress`; a session that has ended keeps how it ended. `overrides`,
`voice_stack_override` and the reason of an end have no effect. A session that its first message
made is a session like any other. Source: vendor's pages "Sessions API" and "Sessions".
"""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.messages import (
    Conversation,
    ConversationKey,
    ConversationStatus,
    Principal,
    Reply,
    RequestHead,
    Terms,
)
from gateway.neighbours.started import agent_named, text_values
from gateway.ports.conversations import ConversationStore
from gateway.ports.routes import Authenticator, CredentialSource, Route
from gateway.replies import json_reply, moment
from gateway.requests import (
    bad_field,
    bounded_text,
    is_json,
    optional_text,
    parse_json_object,
    path_id,
    require_media_type,
)

DIALECT: Final = "hyponema"

LONGEST_S: Final = 3600
MAX_ID: Final = 256
MAX_REASON: Final = 1000
MODALITIES: Final = ("voice", "voice+text", "text")


class _Sessions:
    """What every endpoint here needs. `now` reads epoch seconds."""

    dialect = DIALECT
    credentials: tuple[CredentialSource, ...] = (CredentialSource("authorization", bearer=True),)

    def __init__(
        self, authenticator: Authenticator, store: ConversationStore, now: Callable[[], float]
    ) -> None:
        self.authenticator = authenticator
        self._store = store
        self._now = now

    async def _session(self, head: RequestHead, principal: Principal) -> Conversation:
        key = ConversationKey(principal.tenant, DIALECT, path_id(head))
        return await self._store.load(key, messages=0)

    def _view(self, session: Conversation) -> dict[str, object]:
        status: str = session.status_at(self._now())
        if status == "open":
            status = "in_progress" if session.length else "pending"
        return {"id": session.key.id, "status": status, "ws_url": None, "chat_url": None}


class HyponemaStart(_Sessions):
    """Makes sessions. `agents` maps each tenant's agent ids to configured agents; `new_id` makes
    ids that cannot be guessed."""

    routes: tuple[Route, ...] = (Route("POST", "/sessions"),)

    def __init__(
        self,
        authenticator: Authenticator,
        store: ConversationStore,
        agents: Mapping[str, Mapping[str, str]],
        *,
        now: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        super().__init__(authenticator, store, now)
        self._agents = agents
        self._new_id = new_id

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The new session. Raises `GatewayError`."""
        require_media_type(head, is_json)
        members = parse_json_object(body)
        agent_id = bounded_text(members, "agent_id", MAX_ID)
        user_id = bounded_text(members, "user_id", MAX_ID)
        ttl_s = _ttl_s(members.get("ttl_seconds"))
        now = self._now()
        terms = Terms(
            agent=agent_named(agent_id, self._agents.get(principal.tenant, {})),
            variables=text_values(members, "dynamic_variables"),
            expires_at=None if ttl_s is None else now + ttl_s,
            details={"agent_id": agent_id, "user_id": user_id, "modality": _modality(members)},
        )
        key = ConversationKey(principal.tenant, DIALECT, self._new_id())
        session = await self._store.create(key, owner=None, subject=None, terms=terms)
        expires_at = now + (LONGEST_S if ttl_s is None else ttl_s)
        made = {**self._view(session), "token": None, "expires_at": moment(expires_at)}
        return json_reply(201, made)


class HyponemaSession(_Sessions):
    """Shows a session."""

    routes: tuple[Route, ...] = (Route("GET", "/sessions/{id}"),)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """Where the session stands. Raises `GatewayError`."""
        return json_reply(200, self._view(await self._session(head, principal)))


class HyponemaEnd(_Sessions):
    """Ends a session; ending it again changes nothing."""

    routes: tuple[Route, ...] = (Route("POST", "/sessions/{id}/end"),)

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """Where the session stands now. Raises `GatewayError`."""
        members: dict[str, object] = {}
        if body:
            require_media_type(head, is_json)
            members = parse_json_object(body)
        status = _end(members)
        optional_text(members, "reason", MAX_REASON)
        session = await self._session(head, principal)
        if session.status_at(self._now()) == "open":
            session = await self._store.update(session.key, status=status)
        return json_reply(200, self._view(session))


def _end(members: dict[str, object]) -> ConversationStatus:
    value = members.get("status", "completed")
    if value == "completed":
        return "completed"
    if value == "failed":
        return "failed"
    raise bad_field("status", 'must be "completed" or "failed"')


def _modality(members: dict[str, object]) -> str:
    value = members.get("modality")
    if value is None:
        return MODALITIES[0]
    if value not in MODALITIES:
        raise bad_field("modality", f"must be one of {', '.join(MODALITIES)}")
    return str(value)


def _ttl_s(value: object) -> int | None:
    if value is None:
        return None
    # JSON has one kind of number: 60.0 is as whole as 60.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 or value < 1:
        raise bad_field("ttl_seconds", "must be a whole number of at least 1")
    return int(min(value, LONGEST_S))
