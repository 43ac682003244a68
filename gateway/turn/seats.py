"""Conversations for turns: one turn at a time on each, in this worker and in all others.

In front is the line of this process (`locks.py`), which knows who came first; its head takes the
store's lease. Workers that wait for each other's lease ask again and again, so between workers
there is no order. For `MOMENT_S` everybody waits, also where nobody waits for a running turn: its
client may have left it, and on another connection that can be heard later than what it sends next.
A lease is renewed while its turn runs; a worker that dies or is cut off from the store loses its
leases after `lease_s`, and the store refuses what it still tries to write.

A cancellation waits until the store's step in hand is over, so no lease is left without an owner.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import structlog

from gateway.errors import ConversationBusy, GatewayError, RequestError
from gateway.messages import Conversation, ConversationKey, Lease, Leased, Message, Recorded
from gateway.ports.conversations import ConversationStore
from gateway.turn.locks import ConversationLocks, Hold, Leaving, stays

MOMENT_S: Final = 0.3

_log: Final = structlog.get_logger("gateway.turn")

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.25
_RENEWALS_PER_LEASE: Final = 3

T = TypeVar("T")
Begin = Callable[[], Coroutine[Any, Any, Leased | Recorded]]


class Seat:
    """One turn's place in its conversation, from `Seats.take` until `leave`.

    `recorded` is set where an earlier request was the same: then there is nothing to write.
    """

    def __init__(self, seats: "Seats", hold: Hold, begun: Leased | Recorded) -> None:
        self.conversation: Conversation = begun.conversation
        self.recorded = begun.record if isinstance(begun, Recorded) else None
        self._seats = seats
        self._hold = hold
        self._lease = begun.lease if isinstance(begun, Leased) else None

    @property
    def takes_record(self) -> bool:
        """Whether a later request may ask for this turn's reply again."""
        return self._lease is not None and self._lease.once is not None

    async def keep(self, messages: Sequence[Message], record: bytes | None = None) -> None:
        """Stores the messages and ends the lease. Raises `GatewayError`, and ends it all the
        same: what was refused may not be tried again later than it should have been."""
        lease, self._lease = self._lease, None
        if lease is None:
            raise RuntimeError("the seat has nothing to write under")
        await self._seats.commit(lease, messages, record)

    async def leave(self) -> None:
        """Lets the next turn begin; again, it does nothing."""
        lease, self._lease = self._lease, None
        try:
            if lease is not None:
                await self._seats.release(lease)
        finally:
            self._hold.release()


class Seats:
    """The conversations of one event loop; `len()` is the number of leases held."""

    def __init__(self, store: ConversationStore, locks: ConversationLocks) -> None:
        self._store = store
        self._locks = locks
        self._leases: dict[ConversationKey, Lease] = {}
        self._every_s = store.lease_s / _RENEWALS_PER_LEASE
        self._timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._leases)

    @asynccontextmanager
    async def take(
        self, key: ConversationKey, begin: Begin, *, wait_s: float, leaving: Leaving = stays
    ) -> AsyncIterator[Seat]:
        """A seat that `begin` opened, after a wait of `wait_s`, or a moment, if another turn runs.

        `leaving` says whether the client has left, and the turn will end for that (`locks.py`).
        Raises `ConversationBusy`, and what `begin` raises.
        """
        wait_s = max(wait_s, MOMENT_S)
        by = asyncio.get_running_loop().time() + wait_s
        async with self._locks.hold(key, wait_s, leaving=leaving) as hold:
            begun = await self._begin(begin, by)
            if isinstance(begun, Leased):
                self._watch(begun.lease)
            seat = Seat(self, hold, begun)
            try:
                yield seat
            finally:
                await seat.leave()

    async def commit(self, lease: Lease, messages: Sequence[Message], record: bytes | None) -> None:
        """Stores a turn and ends its lease."""
        try:
            await unbroken(self._store.commit(lease, messages, record=record))
        except BaseException:
            # Whatever it was, also a cancellation that hides a failure; after a good end it does
            # nothing. Whoever waits for this turn's end need not wait for the store once more.
            self._spawn(self._release(lease))
            raise
        finally:
            self._leases.pop(lease.key, None)

    async def release(self, lease: Lease) -> None:
        """Ends a lease without a word."""
        self._leases.pop(lease.key, None)
        await unbroken(self._release(lease))

    async def _begin(self, begin: Begin, by: float) -> Leased | Recorded:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await unbroken(begin(), undo=self._give_back)
            except ConversationBusy:
                if loop.time() + pause >= by:
                    raise
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, 2 * pause)

    async def _give_back(self, begun: Leased | Recorded) -> None:
        if isinstance(begun, Leased):
            await self._release(begun.lease)

    async def _release(self, lease: Lease) -> None:
        try:
            await self._store.release(lease)
        except GatewayError as error:
            _log.warning("lease_not_released", kind=error.kind, free_after_s=self._store.lease_s)

    def _watch(self, lease: Lease) -> None:
        self._leases[lease.key] = lease
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._leases:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._tick)
            self._spawn(self._renew(tuple(self._leases.values())))

    async def _renew(self, leases: Sequence[Lease]) -> None:
        try:
            await self._store.renew(leases)
        except GatewayError as error:
            _log.warning("leases_not_renewed", kind=error.kind, leases=len(leases))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def unbroken(
    work: Coroutine[Any, Any, T],
    *,
    undo: Callable[[T], Coroutine[Any, Any, None]] | None = None,
) -> T:
    """What `work` returns or raises. A cancellation, or several, is raised once it is over, and
    after `undo` of its result."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if task.cancelled():
            raise
        error = task.exception()
        if error is None:
            if undo is not None:
                await unbroken(undo(task.result()))
        elif not isinstance(error, RequestError):
            # The cancellation hides from the caller that the store is at fault.
            _log.warning("store_step_failed", error=type(error).__name__)
        raise
