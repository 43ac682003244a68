"""The workers of a gateway: so many places, and in each place one that serves.

Whoever dies is replaced, the first time at once and then after growing waits; too many deaths in
a short time, for so many workers, mean that the gateway cannot run. A replacement listens before
the worker before it is told to leave, so nobody finds the door closed.
"""

import asyncio
import signal
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Final

import structlog

from gateway.serving.child import Child, Patience
from gateway.serving.orders import MakeOrders
from gateway.telemetry.supervision import Loss, SupervisorMetrics, WorkerFacts
from gateway.telemetry.totals import Totals

_log: Final = structlog.get_logger("gateway.serving")
_TICK_S: Final = 0.25
_CRASHES: Final = 5
_CRASH_WINDOW_S: Final = 60.0
_LONGEST_WAIT_S: Final = 30.0
_AT_ONCE: Final = "a worker died as soon as it had started; see the log"


class WorkersError(Exception):
    """Workers cannot serve; the message is one line for the operator."""


class Workers:
    """The workers; `keep` has to run beside everything else.

    `failed` is set once they cannot go on; `clean` says whether all ended by themselves when they
    were told to stop; `orders` are those in force.
    """

    def __init__(
        self,
        metrics: SupervisorMetrics,
        totals: Totals,
        patience: Patience | None = None,
    ) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.clean = True
        self.orders: MakeOrders | None = None
        self._descriptors: tuple[int, ...] = ()
        self._metrics = metrics
        self._totals = totals
        self._patience = patience or Patience()
        self._places: dict[int, Child] = {}
        # Those that leave and successors that start too. Metrics are read in another thread, which
        # must never find a child missing while it changes its place.
        self._children: set[Child] = set()
        self._due: dict[int, float] = {}
        self._deaths: deque[tuple[float, int]] = deque()  # when, and in which place
        self._failed_starts = 0
        self._moves: set[asyncio.Task[None]] = set()
        self._one_by_one = asyncio.Lock()
        self._drain_s = 0.0
        self._stopping = False
        self._looked = monotonic()
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def facts(self) -> list[WorkerFacts]:
        """Every worker process, by place."""
        return sorted((child.facts for child in self._all()), key=lambda it: (it.slot, it.process))

    @property
    def serving(self) -> int:
        """How many places have a worker that listens and is not held up."""
        return sum(child.serves for child in list(self._places.values()))

    def prepare(self, count: int, descriptors: tuple[int, ...]) -> None:
        """Starts the processes, which wait for their orders. Raises `WorkersError`.

        Every worker, now and later, inherits the descriptors.
        """
        self._descriptors = descriptors
        for slot in range(count):
            self._places[slot] = self._child(slot)

    async def begin(self, orders: MakeOrders, drain_s: float) -> None:
        """Gives the orders and returns when all listen. Raises `WorkersError`.

        `drain_s` is what turns have when their worker has to leave.
        """
        count = len(self._places)
        for child in self._places.values():
            child.give(orders(child.slot))
        for why in await asyncio.gather(*(child.started() for child in self._places.values())):
            if why is not None:
                raise WorkersError(why)
        if len(self._places) < count:
            raise WorkersError(_AT_ONCE)
        self.orders, self._drain_s = orders, drain_s

    async def replace(self, orders: MakeOrders, drain_s: float, count: int) -> None:
        """Puts a new worker into every place, one after the other, and has `count` places.

        Raises `WorkersError` if a new one does not start. Then the former orders stay in force, and
        those that were replaced already are replaced again.
        """
        places = {*self._places, *self._due}
        former = self.orders, self._drain_s
        for slot in range(count):
            try:
                async with self._one_by_one:
                    await self._succeed(slot, orders)
            except WorkersError:
                self.orders, self._drain_s = former
                self._take_back(places, slot)
                raise
            self.orders, self._drain_s = orders, drain_s
        for slot in [slot for slot in {*self._places, *self._due} if slot >= count]:
            self._let_go(slot)

    def _take_back(self, places: set[int], end: int) -> None:
        """Has those before `end` replaced again, if their places are to stay."""
        for slot in range(end):
            if slot not in places:
                self._let_go(slot)
            elif slot in self._places:
                self._places[slot].has_to_leave = True

    async def stop(self, notice_s: float, drain_s: float) -> None:
        """Tells all to end, and returns when they have."""
        self._stopping = self.clean = True
        self._due.clear()
        for child in self._all():
            child.stop(notice_s, drain_s)
        while self._all():
            self._changed.clear()
            await self._changed.wait()

    def hurry(self) -> None:
        """Ends the running turns of workers that leave."""
        for child in self._all():
            child.hurry()

    async def keep(self) -> None:
        """Watches and replaces, until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._woken.wait()
            self._woken.clear()
            try:
                self._look()
            except Exception:  # noqa: BLE001 - without this loop nobody could even stop
                _log.critical("supervisor_fault", exc_info=True)
                self._give_up("the supervisor has a fault; see the log")

    def _all(self) -> list[Child]:
        return list(self._children)

    def _child(self, slot: int) -> Child:
        try:
            child = Child(slot, self._descriptors, self._patience, self._woken.set)
        except OSError as error:
            raise WorkersError(f"cannot start a worker: {error.strerror}") from error
        self._totals.add(child.board)
        self._children.add(child)
        return child

    def _look(self) -> None:
        now = monotonic()
        tick_s, self._looked = min(now - self._looked, 2 * _TICK_S), now
        self._metrics.beat()
        for child in self._all():
            status = child.ended()
            if status is None:
                child.look(now, tick_s)
            else:
                self._take_away(child, status)
        for slot, due in list(self._due.items()):
            if due <= now:
                del self._due[slot]
                self._fill(slot)
        if not self._due and all(it.state == "listening" for it in self._places.values()):
            self._failed_starts = 0
        for child in self._places.values():
            if child.has_to_leave and not self._stopping:
                child.has_to_leave = False
                move = asyncio.create_task(self._move(child))
                self._moves.add(move)
                move.add_done_callback(self._moves.discard)

    async def _move(self, child: Child) -> None:
        """Puts another worker into the place of one that has to leave, however long it takes."""
        wait_s = 1.0
        while True:
            async with self._one_by_one:
                if self._places.get(child.slot) is not child or self._stopping or not self.orders:
                    return
                try:
                    await self._succeed(child.slot, self.orders)
                except WorkersError as error:
                    if not self._stopping:
                        _log.error("worker_not_replaced", worker=child.slot, why=str(error))
                else:
                    return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _succeed(self, slot: int, orders: MakeOrders) -> None:
        """Puts a new worker into the place once it listens. Raises `WorkersError`."""
        child = self._child(slot)
        child.give(orders(slot))
        why = await child.started()
        if why is not None or child not in self._children:
            raise WorkersError(why or _AT_ONCE)
        self._let_go(slot)
        self._places[slot] = child

    def _let_go(self, slot: int) -> None:
        self._due.pop(slot, None)
        child = self._places.pop(slot, None)
        if child is not None:
            child.retire(self._drain_s)

    def _fill(self, slot: int) -> None:
        """Puts a worker into an empty place."""
        if self.orders is None:
            return
        try:
            child = self._places[slot] = self._child(slot)
            child.give(self.orders(slot))
        except WorkersError as error:
            _log.error("worker_not_started", worker=slot, why=str(error))
            self._try_later(slot)

    def _take_away(self, child: Child, status: int) -> None:
        """Settles the affairs of a worker that has ended, and plans for another if need be."""
        how = "wedged" if child.wedged else _named(status)
        turns = self._totals.end(child.board)
        child.close(f"a worker ended while it started ({how}); see the log")
        why = child.failure
        told = child.state == "leaving"
        in_place = self._places.get(child.slot) is child
        self._children.discard(child)
        if in_place:
            del self._places[child.slot]
        self._changed.set()
        facts = {"worker": child.slot, "process": child.pid, "how": how, "turns_lost": turns}
        if self.orders is None:
            return  # the first start failed or was broken off, and whoever asked for it says so
        if told:
            # One that never listened had nothing to lose.
            self.clean = self.clean and (status == 0 or why is not None)
            (_log.info if status == 0 else _log.error)("worker_ended", **facts)
            return
        _log.error("worker_lost", **facts, why=why)
        if in_place and not self._stopping:
            self._mourn(child, _loss(child, status, why), how)

    def _mourn(self, child: Child, loss: Loss, how: str) -> None:
        """Decides when the place is filled again, or that there is no use in it."""
        self._metrics.worker_lost(loss)
        if loss == "start" and self.serving:
            # Others serve; what keeps a new one from starting may pass.
            self._try_later(child.slot)
            return
        now = monotonic()
        self._deaths.append((now, child.slot))
        while self._deaths[0][0] < now - _CRASH_WINDOW_S:
            self._deaths.popleft()
        count = len(self._deaths)
        here = sum(slot == child.slot for _, slot in self._deaths)
        # All may die once of one cause, as of want of memory: that is no loop yet.
        if count >= _CRASHES + len({*self._places, *self._due} - {child.slot}):
            self._give_up(
                f"{count} workers died within {_CRASH_WINDOW_S:g} s, the last one by {how}"
            )
        wait_s = min(2.0 ** (here - 4), _LONGEST_WAIT_S) if here > 1 else 0.0
        self._due[child.slot] = now + wait_s
        self._woken.set()

    def _give_up(self, why: str) -> None:
        if not self.failed.done():
            self.failed.set_result(why)

    def _try_later(self, slot: int) -> None:
        self._failed_starts += 1
        self._due[slot] = monotonic() + min(2**self._failed_starts, _LONGEST_WAIT_S)


def _named(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _loss(child: Child, status: int, why: str | None) -> Loss:
    if why is not None:
        return "start"
    if child.wedged:
        return "wedged"
    return "signal" if status < 0 else "exit"
