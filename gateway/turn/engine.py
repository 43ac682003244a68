"""Runs one turn: calls a model, hands its events to the client, keeps history, ends once.

The order at the end of a good turn is: history stored, conversation released, terminal record
sent. A client that answers the terminal record at once finds its conversation free and whole.

Until the first generated delta nothing has been sent: a failure is a status, and another model
may be tried unseen. From then on a failure is `TurnFailed`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.errors import (
    Cancelled,
    ContextLength,
    ErrorKind,
    GatewayError,
    Internal,
    StoreUnavailable,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.events import (
    ModelEvent,
    ModelFinished,
    RoundFinished,
    TurnEvent,
    TurnFailed,
    TurnFinished,
)
from gateway.messages import KeptCall, MessageStatus, Prompt, PromptMessage
from gateway.ports import Downstream, Model, ModelStream
from gateway.turn.prompt import Exchange, fit
from gateway.turn.reply import ReplyFold, generated, joined
from gateway.turn.tally import RoundTally, TurnTally
from gateway.turn.watch import ClientStalled, Watch

_log: Final = structlog.get_logger("gateway.turn")

# A model that counts more tokens than the estimate refuses the prompt: try with less history.
_SHRINK_TRIES: Final = 4
_STORE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class KeptReply:
    """What a turn leaves behind: what the client was shown, and the events that end its stream."""

    text: str
    status: MessageStatus
    calls: tuple[KeptCall, ...]
    ending: tuple[TurnEvent, ...]


Keep = Callable[[KeptReply], Awaitable[None]]
Release = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Agent:
    """A configured assistant; `models` are tried in order."""

    name: str
    models: tuple[Model, ...]
    system_prompt: str
    history_messages: int
    max_tokens: int | None
    temperature: float | None
    stop: tuple[str, ...]
    turn_s: float
    finish_when_gone: bool
    refusal: str


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """What a turn is to do. `headers` go to the upstream; `output_bytes` caps the reply's text."""

    agent: Agent
    past: Sequence[Exchange]
    newest: PromptMessage
    headers: tuple[tuple[str, str], ...]
    output_bytes: int


class Turn:
    """One turn; `run` is called once, in the task that `watch` watches.

    `keep` stores the exchange; `release` lets the next turn on the conversation begin.
    """

    def __init__(
        self,
        plan: TurnPlan,
        down: Downstream,
        watch: Watch,
        tally: TurnTally,
        *,
        keep: Keep,
        release: Release,
    ) -> None:
        self._plan = plan
        self._down = down
        self._watch = watch
        self._tally = tally
        self._keep = keep
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._reply = ReplyFold(plan.output_bytes)
        self._kept = False

    async def run(self) -> None:
        """Runs the turn to its end. Raises only `CancelledError`, when the client has gone."""
        try:
            await self._generate()
        except GatewayError as error:
            await self._end_badly(error)
        except asyncio.CancelledError:
            fault = self._watch.fault
            if fault is None:
                self._watch.stop()
                self._tally.outcome = "client_disconnect"
                await self._keep_partial("cancelled")
                raise
            _forget_cancellation()
            await self._end_badly(fault)
        except Exception:  # noqa: BLE001 - a fault of ours must still end the client's stream
            _log.exception("turn_fault")
            await self._end_badly(Internal())
        finally:
            self._watch.stop()
            await self._release()

    async def _generate(self) -> None:
        stream, entry, events = await self._first_events()
        try:
            finished = await self._relay(stream, events)
            entry.usage = finished.usage
        except GatewayError as error:
            entry.error = error.kind
            raise
        except asyncio.CancelledError:
            entry.error = self._watch.fault.kind if self._watch.fault else "cancelled"
            raise
        finally:
            entry.ended = self._loop.time()
            self._watch.model_ended()
            await stream.close()
        await self._succeed(finished)

    async def _first_events(self) -> tuple[ModelStream, RoundTally, list[ModelEvent]]:
        """A stream that has begun to generate (or has ended well), and its events so far."""
        models = self._plan.agent.models
        for model in models[:-1]:
            try:
                return await self._try_model(model)
            except (UpstreamUnavailable, UpstreamTimeout, UpstreamRateLimited) as error:
                if self._down.opened:
                    raise
                _log.warning("upstream_skipped", upstream=model.name, kind=error.kind)
        return await self._try_model(models[-1])

    async def _try_model(self, model: Model) -> tuple[ModelStream, RoundTally, list[ModelEvent]]:
        past = list(self._plan.past)
        for _ in range(_SHRINK_TRIES):
            try:
                return await self._call(model, past)
            except ContextLength:
                if not past:
                    raise
                past = past[len(past) // 2 + 1 :]
        return await self._call(model, [])

    async def _call(
        self, model: Model, past: Sequence[Exchange]
    ) -> tuple[ModelStream, RoundTally, list[ModelEvent]]:
        entry = RoundTally(model.name, model.provider, model.model, self._loop.time())
        self._tally.rounds.append(entry)
        self._watch.model_called(
            first_token_s=model.first_token_s, idle_s=model.idle_s, total_s=model.total_s
        )
        stream: ModelStream | None = None
        try:
            stream = await model.call(self._prompt(model, past), headers=self._plan.headers)
            events: list[ModelEvent] = []
            while not generated(events):
                events += await self._read(stream, entry)
        except BaseException as error:
            self._close_entry(entry, error)
            if stream is not None:
                await stream.close()
            raise
        self._watch.token_came()
        if not isinstance(events[0], ModelFinished):
            self._tally.first_generated = self._loop.time()
        return stream, entry, events

    def _close_entry(self, entry: RoundTally, error: BaseException) -> None:
        self._watch.model_ended()
        entry.ended = self._loop.time()
        if isinstance(error, GatewayError):
            entry.error = error.kind
        else:
            entry.error = self._watch.fault.kind if self._watch.fault else "cancelled"

    async def _read(self, stream: ModelStream, entry: RoundTally) -> list[ModelEvent]:
        events = await stream.read()
        now = self._watch.read_at = self._loop.time()
        if entry.first_event is None and events:
            entry.first_event = now
        return events

    def _prompt(self, model: Model, past: Sequence[Exchange]) -> Prompt:
        agent = self._plan.agent
        budget = None
        if model.context_tokens is not None:
            budget = model.context_tokens - (agent.max_tokens or model.output_tokens or 0)
        return Prompt(
            model=model.model,
            system=agent.system_prompt,
            messages=fit(agent.system_prompt, past, self._plan.newest, budget=budget),
            max_tokens=agent.max_tokens,
            temperature=agent.temperature,
            stop=agent.stop,
        )

    async def _relay(self, stream: ModelStream, events: list[ModelEvent]) -> ModelFinished:
        """Hands events on until the model has finished: the path of every token."""
        down, tally, watch, now = self._down, self._tally, self._watch, self._loop.time
        reply = self._reply
        await down.begin()
        while True:
            finished: ModelFinished | None = None
            if events:
                last = events[-1]
                if isinstance(last, ModelFinished):
                    finished = last
                    events.pop()
                spoke = reply.take(events)
                if len(events) > 1:
                    events = joined(events)
                if events:
                    await down.send(events)  # type: ignore[arg-type]  # no ModelFinished is left
                if spoke and tally.first_delivered is None:
                    tally.first_delivered = now()
                tally.deltas = tally.delivered = reply.deltas
                if finished is not None:
                    return finished
            events = await stream.read()
            watch.read_at = now()

    async def _succeed(self, finished: ModelFinished) -> None:
        self._watch.close_turn()
        reason = self._tally.reason = self._reply.reason(finished.reason)
        ending = (
            RoundFinished(reason, finished.usage),
            TurnFinished(
                self._reply.text,
                reason,
                self._tally.usage,
                self._latency_ms(),
                tuple(self._reply.citations),
            ),
        )
        await self._store("complete", ending)
        await self._release()
        self._tally.outcome = "ok"
        await self._down.finish(ending)

    async def _end_badly(self, error: GatewayError) -> None:
        """`_fail`, which may itself find a client that takes nothing."""
        try:
            await self._fail(error)
        except asyncio.CancelledError:
            if not isinstance(self._watch.fault, ClientStalled):
                raise
            _forget_cancellation()
        except Exception:  # noqa: BLE001 - the turn is over and counted; nothing more can be told
            _log.exception("turn_fault")

    async def _fail(self, error: GatewayError) -> None:
        self._watch.close_turn()
        self._tally.outcome = "client_disconnect" if isinstance(error, Cancelled) else error.kind
        if self._down.terminal_sent:
            return  # a second terminal record would be one too many
        await self._keep_partial(error.kind)
        await self._release()
        if isinstance(error, ClientStalled):
            return
        if self._down.opened:
            await self._down.finish([TurnFailed(error.kind, self._latency_ms())])
        else:
            await self._down.refuse(error)

    async def _keep_partial(self, kind: ErrorKind) -> None:
        """Stores a reply that was cut short, if the client saw any of it."""
        if self._kept or not self._reply.text or not self._down.opened:
            return
        try:
            await self._store("partial", (TurnFailed(kind, self._latency_ms()),))
        except GatewayError as error:
            _log.warning("partial_reply_not_stored", kind=error.kind)

    async def _store(self, status: MessageStatus, ending: tuple[TurnEvent, ...]) -> None:
        """Stores the exchange; a cancellation waits, so that whoever comes next finds it."""
        self._kept = True
        reply = KeptReply(self._reply.text, status, self._reply.calls, ending)
        storing = self._loop.create_task(self._keep_in_time(reply))
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            await asyncio.wait([storing])
            if not storing.cancelled() and storing.exception() is not None:
                _log.warning("reply_not_stored")
            raise

    async def _keep_in_time(self, reply: KeptReply) -> None:
        try:
            async with asyncio.timeout(_STORE_S):
                await self._keep(reply)
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {_STORE_S:g} s") from None

    def _latency_ms(self) -> int:
        return round((self._loop.time() - self._tally.began) * 1000)


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
