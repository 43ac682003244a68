"""A chat route: admission step by step, then the turn.

Order of checks: route, CORS, credential, limits, size, body, conversation. What fails before the
turn is refused with a status and counted as such; what is admitted is one turn, counted once,
whatever becomes of it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.access.limits import Held, Limits
from gateway.access.ownership import check_owner
from gateway.access.visitors import Visitors
from gateway.errors import Conflict, NotFound, Overloaded
from gateway.messages import (
    ChatRequest,
    Conversation,
    ConversationKey,
    DialectOptions,
    Message,
    MessageStatus,
    Principal,
    PromptMessage,
    TurnContext,
)
from gateway.ports import Authenticator, ConversationStore, Dialect
from gateway.transport.downstream import HttpDownstream
from gateway.turn.engine import Agent, Turn, TurnPlan
from gateway.turn.locks import ConversationLocks, Hold
from gateway.turn.pressure import Pressure
from gateway.turn.prompt import exchanges
from gateway.turn.registry import RunningTurns
from gateway.turn.tally import TurnTally
from gateway.turn.watch import Watch
from gateway.web.admission import Admission
from gateway.web.cors import Cors
from gateway.web.request import Request

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class TurnRecorder(Protocol):
    """Where a turn leaves its metrics record."""

    def turn_began(self, dialect: str) -> None:
        """A turn was admitted."""
        ...

    def turn_ended(self, tally: TurnTally) -> None:
        """An admitted turn is over."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """The `limits` section as the application uses it: seconds and bytes."""

    body_bytes: int
    body_s: float
    send_s: float
    keep_alive_s: float
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a chat request needs, chosen by `wiring.py`.

    `new_id` makes UUIDs, `now` reads epoch seconds.
    """

    authenticators: Mapping[str, Authenticator]
    agents: Mapping[str, Agent]
    options: Mapping[tuple[str, str], DialectOptions]
    cors: Cors
    limits: Limits
    visitors: Visitors
    turns: RunningTurns
    pressure: Pressure
    locks: ConversationLocks
    store: ConversationStore
    recorder: TurnRecorder
    bounds: Bounds
    new_id: Callable[[], str]
    now: Callable[[], float]


class Chat:
    """Serves the chat routes of all dialects."""

    def __init__(self, services: Services, admission: Admission) -> None:
        self._services = services
        self._admission = admission

    async def serve(self, request: Request, dialect: Dialect) -> None:
        """Answers the request wholly. Raises `GatewayError` only while nothing was sent."""
        services, admission = self._services, self._admission
        authenticator = services.authenticators[dialect.name]
        principal = admission.recognise(request, dialect.name, dialect.credentials, authenticator)
        agent = services.agents[principal.agent]
        options = services.options.get((principal.tenant, dialect.name), DialectOptions())
        services.pressure.admit(principal.tenant)
        with services.turns.place():
            async with self._admitted(request, principal, agent) as held:
                body = await request.exchange.body()
                chat = dialect.decode_request(request.head, body, options)
                key = ConversationKey(principal.tenant, dialect.name, chat.conversation_id)
                async with self._hold(key, dialect, agent) as hold:
                    conversation = await self._load(key, principal, options, agent)
                    services.turns.check()
                    turn = _TurnFacts(
                        request, dialect, agent, options, chat, conversation, hold, held
                    )
                    await self._run(turn)

    def _admitted(
        self, request: Request, principal: Principal, agent: Agent
    ) -> AbstractAsyncContextManager[Held]:
        """What the request takes from its limits, until it is over."""
        services = self._services
        declared = request.head.headers.get("content-length")
        return services.limits.admitted(
            principal,
            visitor=self._admission.visitor(request),
            body_bytes=int(declared) if declared.isdigit() else services.bounds.body_bytes,
            max_tokens=agent.max_tokens,
        )

    async def _load(
        self, key: ConversationKey, principal: Principal, options: DialectOptions, agent: Agent
    ) -> Conversation:
        """The conversation, which belongs to the principal's identity if it has one.

        Raises `NotFound` and `NotOwner`.
        """
        store, create = self._services.store, options.unknown_conversation == "create"
        owned = principal.identity is not None
        try:
            conversation = await store.load(
                key, create=create and not owned, messages=agent.history_messages
            )
        except NotFound:
            if not (create and owned):
                raise
            return await store.create(key, owner=principal.identity, subject=None)
        check_owner(conversation, principal)
        return conversation

    @asynccontextmanager
    async def _hold(
        self, key: ConversationKey, dialect: Dialect, agent: Agent
    ) -> AsyncIterator[Hold]:
        """The conversation for one turn: at once, or on a dialect that queues after a wait."""
        wait_s = agent.turn_s if dialect.conflict == "queue" else 0.0
        hold = self._services.locks.hold(key, wait_s)
        try:
            await hold.__aenter__()
        except Conflict:
            if not wait_s:
                raise
            raise Overloaded("queued behind another turn for too long") from None
        try:
            yield hold
        finally:
            hold.release()

    async def _run(self, facts: "_TurnFacts") -> None:
        services, request, agent = self._services, facts.request, facts.agent
        exchange = request.exchange
        context = self._context(facts)
        tally = TurnTally(facts.dialect.name, request.head.http_version, exchange.received_at)
        plan = TurnPlan(
            agent=agent,
            past=exchanges(facts.conversation.messages, refusal=agent.refusal),
            newest=PromptMessage(facts.chat.role, facts.chat.text),
            headers=_forwarded(request),
            output_bytes=services.bounds.output_bytes,
        )
        down = HttpDownstream(exchange, facts.dialect.encoder(context), facts.dialect.encode_error)
        watch = down.watch = Watch(
            turn_s=agent.turn_s,
            send_s=services.bounds.send_s,
            keep_alive_s=services.bounds.keep_alive_s,
            keep_alive=down.keep_alive,
        )
        exchange.cancel_when_gone = not agent.finish_when_gone
        turn = Turn(
            plan,
            down,
            watch,
            tally,
            keep=self._keeper(facts, context.message_id),
            release=facts.hold.release,
        )
        request.tally = tally
        services.recorder.turn_began(facts.dialect.name)
        try:
            with services.turns.running(watch.stop_turn):
                await turn.run()
        finally:
            if exchange.gone and agent.finish_when_gone:
                tally.outcome = "client_disconnect"
            tally.bytes = exchange.sent_bytes
            tally.ended = asyncio.get_running_loop().time()
            facts.held.spend(tally.usage, tally.deltas)
            services.recorder.turn_ended(tally)

    def _context(self, facts: "_TurnFacts") -> TurnContext:
        new_id = self._services.new_id
        return TurnContext(
            turn_id=new_id(),
            run_id=new_id(),
            message_id=new_id(),
            conversation_id=facts.conversation.public_id,
            trace_id=facts.request.trace_id,
            model=facts.agent.models[0].model,
            framing=facts.chat.framing,
            created_at=int(self._services.now()),
            refusal=facts.agent.refusal,
            continues=facts.chat.continues,
            options=facts.options,
        )

    def _keeper(
        self, facts: "_TurnFacts", reply_id: str
    ) -> Callable[[str, MessageStatus], Awaitable[None]]:
        """Stores the exchange in one step: what was asked, and what the client was shown."""
        services, chat = self._services, facts.chat
        asked = Message(chat.message_id or services.new_id(), chat.role, chat.text, services.now())

        async def keep(text: str, status: MessageStatus) -> None:
            reply = Message(reply_id, "assistant", text, services.now(), status)
            await services.store.append(facts.conversation.key, (asked, reply))

        return keep


@dataclass(frozen=True, slots=True)
class _TurnFacts:
    request: Request
    dialect: Dialect
    agent: Agent
    options: DialectOptions
    chat: ChatRequest
    conversation: Conversation
    hold: Hold
    held: Held


def _forwarded(request: Request) -> tuple[tuple[str, str], ...]:
    """The headers that an upstream may see: the request's id and its trace."""
    fields = [("x-request-id", request.request_id)]
    traceparent = request.head.headers.get("traceparent")
    if _TRACEPARENT.fullmatch(traceparent):
        fields.append(("traceparent", traceparent))
    return tuple(fields)


def trace_id(traceparent: str, *, fallback: str) -> str:
    """The trace id of a W3C `traceparent`, else `fallback`."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else fallback
