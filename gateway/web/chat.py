"""A chat route: admission step by step, then the turn.

Order of checks: route, CORS, credential, limits, size, body, conversation. What fails before the
turn is refused with a status and counted as such; what is admitted is one turn, counted once,
whatever becomes of it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from gateway.access.limits import Held, Limits
from gateway.access.strangers import Strangers
from gateway.access.visitors import Visitors
from gateway.errors import Conflict, ConversationBusy, Overloaded
from gateway.events import TurnFinished
from gateway.messages import (
    ChatRequest,
    Conversation,
    ConversationKey,
    DialectOptions,
    KeptCall,
    Leased,
    Message,
    Once,
    Principal,
    PromptMessage,
    Recorded,
    TurnContext,
)
from gateway.ports.codecs import Dialect
from gateway.ports.conversations import ConversationStore
from gateway.ports.routes import Authenticator
from gateway.transport.asgi import Fields
from gateway.transport.downstream import HttpDownstream
from gateway.turn.engine import Keep, KeptReply, Turn
from gateway.turn.idempotency import Repeat, Tape, TapedDownstream, once_of, replayed
from gateway.turn.plan import Agent, TurnPlan
from gateway.turn.pressure import Pressure
from gateway.turn.prompt import exchanges, fill, gone_on_with
from gateway.turn.registry import RunningTurns
from gateway.turn.seats import Seat, Seats
from gateway.turn.tally import TurnTally
from gateway.turn.watch import Watch
from gateway.web.admission import Admission
from gateway.web.cors import Cors
from gateway.web.request import Request

# So far back a client that posts a message again may go, however little of it the model is shown.
_REPOSTED: Final = 30
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class TurnRecorder(Protocol):
    """Where a turn leaves its metrics record."""

    def turn_began(self, dialect: str, http_version: str) -> None:
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
    """Everything that a chat request needs, chosen by `wiring`.

    `new_id` makes UUIDs, `now` reads epoch seconds.
    """

    authenticators: Mapping[str, Authenticator]
    agents: Mapping[str, Agent]
    options: Mapping[tuple[str, str], DialectOptions]
    cors: Cors
    limits: Limits
    visitors: Visitors
    strangers: Strangers
    turns: RunningTurns
    pressure: Pressure
    seats: Seats
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
        with services.turns.place(principal.tenant):
            async with self._admitted(request, principal, agent) as held:
                with services.turns.waiting():
                    body = await request.exchange.body()
                await held.measured(len(body))
                chat = dialect.decode_request(request.head, body, options)
                asked = _Asked(request, dialect, agent, principal, options, chat, body)
                async with self._seat(asked) as seat:
                    agent, conversation = await self._serving(seat, agent)
                    services.turns.check()
                    await self._run(
                        _TurnFacts(request, dialect, agent, options, chat, seat, conversation, held)
                    )

    def _admitted(
        self, request: Request, principal: Principal, agent: Agent
    ) -> AbstractAsyncContextManager[Held]:
        """What the request takes from its limits, until it is over."""
        services = self._services
        return services.limits.admitted(
            principal,
            visitor=self._admission.visitor(request.head, request.exchange.client),
            body_bytes=request.exchange.declared_bytes,
            max_tokens=agent.max_tokens,
        )

    async def _serving(self, seat: Seat, agent: Agent) -> tuple[Agent, Conversation]:
        """The agent that the conversation was started with, if it was with one, its prompt filled
        in; and the conversation with as many messages as that agent is shown.

        Raises `Conflict` for a conversation that has ended, unless a reply is only repeated.
        """
        services, conversation = self._services, seat.conversation
        terms = conversation.terms
        if seat.recorded is None and conversation.status_at(services.now()) != "open":
            raise Conflict("the conversation has ended")
        # One that is no longer configured leaves its conversations to the caller's.
        serving = services.agents.get(terms.agent or "", agent)
        shown = serving.history_messages
        if shown > agent.history_messages:
            conversation = await services.store.load(conversation.key, messages=shown)
        elif shown < len(conversation.messages):
            newest = conversation.messages[-shown:] if shown else ()
            conversation = replace(conversation, messages=newest)
        if terms.variables:
            prompt = fill(serving.system_prompt, terms.variables)
            serving = replace(serving, system_prompt=prompt)
        return serving, conversation

    @asynccontextmanager
    async def _seat(self, asked: "_Asked") -> AsyncIterator[Seat]:
        """The conversation for one turn: at once, or on a dialect that queues after a wait.

        An owned identity's new conversation is its own. Raises `NotFound`, `NotOwner`, `Conflict`.
        """
        services, agent, principal = self._services, asked.agent, asked.principal
        key = ConversationKey(principal.tenant, asked.dialect.name, asked.chat.conversation_id)
        once = _once(asked)
        messages = agent.history_messages
        if asked.chat.message_id is not None:
            messages = max(messages, _REPOSTED)

        def begin() -> Coroutine[Any, Any, Leased | Recorded]:
            return services.store.begin(
                key,
                identity=principal.identity,
                create=asked.options.unknown_conversation == "create",
                messages=messages,
                once=once,
            )

        wait_s = agent.turn_s if asked.dialect.conflict == "queue" else 0.0
        try:
            taking = services.seats.take(key, begin, wait_s=wait_s, leaving=asked.leaving)
            async with taking as seat:
                yield seat
        except ConversationBusy:
            if not wait_s:
                raise
            raise Overloaded("queued behind another turn for too long") from None

    async def _run(self, facts: "_TurnFacts") -> None:
        """The turn, or what an earlier request was answered; one record of it in any case."""
        services, request, agent = self._services, facts.request, facts.agent
        exchange = request.exchange
        tally = TurnTally(facts.dialect.name, request.head.http_version, exchange.received_at)
        exchange.cancel_when_gone = not agent.finish_when_gone
        request.tally = tally
        services.recorder.turn_began(tally.dialect, tally.http_version)
        services.pressure.began()
        try:
            if facts.seat.recorded is None:
                await self._turn(facts, tally)
            else:
                await self._repeat(facts, facts.seat.recorded, tally)
        finally:
            if exchange.gone and agent.finish_when_gone:
                tally.outcome = "client_disconnect"
            tally.bytes = exchange.sent_bytes
            tally.ended = asyncio.get_running_loop().time()
            services.recorder.turn_ended(tally)
            services.pressure.ended()

    async def _turn(self, facts: "_TurnFacts", tally: TurnTally) -> None:
        services, request, agent = self._services, facts.request, facts.agent
        context = self._context(facts)
        history, chat = facts.conversation.messages, facts.chat
        newest, results = gone_on_with(history, chat.results)
        past = exchanges(history, refusal=agent.refusal)
        plan = TurnPlan(
            agent=agent,
            past=past[:-1] if newest else past,
            newest=newest or (PromptMessage(chat.role, chat.text),),
            headers=_forwarded(request),
            output_bytes=services.bounds.output_bytes,
        )
        down = self._downstream(facts, context)
        tape = Tape() if facts.seat.takes_record else None
        turn = Turn(
            plan,
            TapedDownstream(down, tape) if tape is not None else down,
            down.watch,
            tally,
            keep=self._keeper(facts, context, down, tape, results),
            release=partial(self._release, facts, tally),
        )
        with services.turns.running(down.watch.stop_turn):
            await turn.run()

    async def _release(self, facts: "_TurnFacts", tally: TurnTally) -> None:
        """Before the client is told that the turn is over: it may begin the next one at once."""
        facts.held.spend(tally.usage, tally.deltas)
        try:
            await facts.seat.leave()
        finally:
            await facts.held.give_back()

    async def _repeat(self, facts: "_TurnFacts", record: bytes, tally: TurnTally) -> None:
        """Sends a recorded reply again, as the dialect words it on this request."""
        await self._release(facts, tally)
        ids, events = replayed(record)
        exchange = facts.request.exchange
        exchange.stamp = partial(_replayed_stamp, exchange.stamp)
        down = self._downstream(facts, replace(self._context(facts), **ids))
        await Repeat(events, down, down.watch, tally).run()

    def _downstream(self, facts: "_TurnFacts", context: TurnContext) -> HttpDownstream:
        encoder, encode_error = facts.dialect.encoder(context), facts.dialect.encode_error
        down = HttpDownstream(facts.request.exchange, encoder, encode_error)
        down.watch = Watch(
            turn_s=facts.agent.turn_s,
            send_s=self._services.bounds.send_s,
            keep_alive_s=self._services.bounds.keep_alive_s,
            keep_alive=down.keep_alive,
        )
        return down

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
        self,
        facts: "_TurnFacts",
        context: TurnContext,
        down: HttpDownstream,
        tape: Tape | None,
        results: tuple[KeptCall, ...],
    ) -> Keep:
        """Stores the exchange in one step: what was asked, and what the client was shown.

        A reply that goes on with tool `results` keeps them: nothing else was asked.
        """
        services, chat = self._services, facts.chat
        # A client that asks for another reply posts its message again, under the id it had.
        known = {message.id for message in facts.seat.conversation.messages}
        asked_id = chat.message_id
        if asked_id is None or asked_id in known:
            asked_id = services.new_id()
        asked = Message(asked_id, chat.role, chat.text, services.now())

        async def keep(reply: KeptReply) -> None:
            ending = reply.ending[-1]
            answer = Message(
                context.message_id,
                "assistant",
                down.shown(ending) if isinstance(ending, TurnFinished) else reply.text,
                services.now(),
                reply.status,
                (*results, *reply.calls),
            )
            record = tape.record(context, reply.ending) if tape is not None else None
            await facts.seat.keep((answer,) if results else (asked, answer), record)

        return keep


@dataclass(frozen=True, slots=True)
class _Asked:
    request: Request
    dialect: Dialect
    agent: Agent
    principal: Principal
    options: DialectOptions
    chat: ChatRequest
    body: bytes

    def leaving(self) -> bool:
        """Whether the client has gone, which ends its turn."""
        exchange = self.request.exchange
        return exchange.gone and exchange.cancel_when_gone


@dataclass(frozen=True, slots=True)
class _TurnFacts:
    request: Request
    dialect: Dialect
    agent: Agent
    options: DialectOptions
    chat: ChatRequest
    seat: Seat
    conversation: Conversation
    held: Held


def _once(asked: _Asked) -> Once | None:
    """The request's `Idempotency-Key`, if it has one."""
    head = asked.request.head
    route = f"{asked.dialect.name} {asked.request.template}"
    return once_of(head.headers, asked.principal, route=route, path=head.path, body=asked.body)


def _replayed_stamp(stamp: Callable[[], Fields]) -> Fields:
    return (*stamp(), ("idempotent-replayed", "true"))


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
