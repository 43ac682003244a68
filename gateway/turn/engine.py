"""Runs one turn: calls a model, hands its events to the client, keeps history, ends once.

The order at the end of a good turn is: history stored, conversation released, terminal record
sent. A client that answers the terminal record at once finds its conversation free and whole.

Until the first generated delta nothing has been sent: a failure is a status, and other models are
tried unseen (`calls.py`). From then on a failure is `TurnFailed`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.errors import (
    Cancelled,
    ErrorKind,
    GatewayError,
    Internal,
    StoreUnavailable,
)
from gateway.events import (
    ModelFinished,
    RoundFinished,
    TurnEvent,
    TurnFailed,
    TurnFinished,
)
from gateway.messages import KeptCall, MessageStatus
from gateway.ports.turns import Downstream
from gateway.turn.calls import ModelCalls, Running
from gateway.turn.plan import TurnPlan
from gateway.turn.reply import ReplyFold, joined
from gateway.turn.tally import TurnTally
from gateway.turn.watch import ClientStalled, Watch

_log: Final = structlog.get_logger("gateway.turn")

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


class Turn:
    """One turn; `run` is called once, in the task that `watch` watches.

    `keep` stores the exchange, and does so wholly before it raises a cancellation: whoever comes
    next finds it. `release` lets the next turn on the conversation begin.
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
        self._calls = ModelCalls(plan, watch, tally)
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
        calls = self._calls
        running = await calls.begin()
        if not isinstance(running.events[0], ModelFinished):
            self._tally.first_generated = self._loop.time()
        try:
            finished = await self._relay(running)
        except BaseException as error:
            await calls.end(running, error)
            raise
        await calls.end(running, None)
        await self._succeed(finished)

    async def _relay(self, running: Running) -> ModelFinished:
        """Hands events on until the model has finished: the path of every token."""
        stream, events = running.stream, running.events
        down, tally, watch, now = self._down, self._tally, self._watch, self._loop.time
        reply = self._reply
        await down.begin(running.entry.model)
        while True:
            finished: ModelFinished | None = None
            if events:
                last = events[-1]
                if isinstance(last, ModelFinished):
                    finished = last
                    running.entry.usage = finished.usage
                    events.pop()
                spoke = reply.take(events)
                tally.deltas = reply.deltas
                if len(events) > 1:
                    events = joined(events)
                if events:
                    await down.send(events)  # type: ignore[arg-type]  # no ModelFinished is left
                if down.opened and not down.gone:
                    tally.delivered = reply.deltas
                    if spoke and tally.first_delivered is None:
                        tally.first_delivered = now()
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
        if self._down.one_shot and not self._down.gone:
            self._tally.delivered = self._reply.deltas
            if self._reply.text:
                self._tally.first_delivered = self._loop.time()

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
        self._tally.deltas = self._reply.deltas  # those that were one too many as well
        self._tally.outcome = "client_disconnect" if isinstance(error, Cancelled) else error.kind
        self._tally.why = str(error)
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
        if self._kept or not self._down.opened or not (self._reply.text or self._reply.calls):
            return
        try:
            await self._store("partial", (TurnFailed(kind, self._latency_ms()),))
        except GatewayError as error:
            _log.warning("partial_reply_not_stored", kind=error.kind)

    async def _store(self, status: MessageStatus, ending: tuple[TurnEvent, ...]) -> None:
        """Stores the exchange."""
        self._kept = True
        try:
            async with asyncio.timeout(_STORE_S):
                await self._keep(KeptReply(self._reply.text, status, self._reply.calls, ending))
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {_STORE_S:g} s") from None

    def _latency_ms(self) -> int:
        return round((self._loop.time() - self._tally.began) * 1000)


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
