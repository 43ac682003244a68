import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.errors import (
    Conflict,
    ConversationBusy,
    GatewayError,
    NotFound,
    StoreUnavailable,
)
from gateway.messages import ConversationKey, Lease, Leased, Message, Once, Recorded
from gateway.stores import MemoryStore
from gateway.turn.locks import ConversationLocks
from gateway.turn.seats import Seat, Seats, unbroken
from tests.stores.rig import make
from tests.turn.playbook import until

KEY = ConversationKey("acme", "widget", "c1")
EXCHANGE = (Message("q", "user", "?", 1.0), Message("a", "assistant", ".", 2.0))
ONCE = Once("a" * 64, "b" * 64)
PATIENCE_S = 10.0


class Workers:
    """Workers that share one store, which can be slow, down, and counts what it is asked."""

    def __init__(self, count: int = 2, *, lease_s: float = 10.0) -> None:
        self.store = SlowStore(lease_s)
        self.seats = [Seats(self.store, ConversationLocks()) for _ in range(count)]

    @asynccontextmanager
    async def turn(
        self, worker: int = 0, *, wait_s: float = 0.0, once: Once | None = None
    ) -> AsyncIterator[Seat]:
        async with self.seats[worker].take(KEY, self.begin(once), wait_s=wait_s) as seat:
            yield seat

    def begin(self, once: Once | None = None) -> Callable[[], Coroutine[Any, Any, Any]]:
        def begin() -> Coroutine[Any, Any, Leased | Recorded]:
            return self.store.begin(KEY, identity=None, create=True, messages=9, once=once)

        return begin

    async def history(self) -> list[str]:
        found = await make(self.store, KEY)
        return [message.id for message in found.messages]

    def idle(self) -> bool:
        return not any(map(len, self.seats))


class SlowStore(MemoryStore):
    def __init__(self, lease_s: float) -> None:
        super().__init__(lease_s=lease_s)
        self.pause_s = 0.0
        self.down = False
        self.fault: Exception = StoreUnavailable("down")
        self.renewals = 0
        self.releases = 0

    async def begin(
        self,
        key: ConversationKey,
        *,
        identity: str | None,
        create: bool,
        messages: int,
        once: Once | None = None,
    ) -> Leased | Recorded:
        await self._wait()
        result = await super().begin(
            key, identity=identity, create=create, messages=messages, once=once
        )
        await asyncio.sleep(self.pause_s)
        return result

    async def renew(self, leases: Sequence[Lease]) -> None:
        self.renewals += 1
        await self._wait()
        await super().renew(leases)

    async def commit(
        self, lease: Lease, messages: Sequence[Message], *, record: bytes | None = None
    ) -> None:
        await self._wait()
        await super().commit(lease, messages, record=record)
        await asyncio.sleep(self.pause_s)

    async def release(self, lease: Lease) -> None:
        self.releases += 1
        await self._wait()
        await super().release(lease)

    async def _wait(self) -> None:
        await asyncio.sleep(self.pause_s)
        if self.down:
            raise self.fault


@pytest.mark.parametrize("other", [0, 1], ids=["same worker", "another worker"])
async def test_a_second_turn_is_refused_while_the_first_runs(other: int) -> None:
    workers = Workers()
    async with workers.turn(0) as seat:
        with pytest.raises(ConversationBusy):
            async with workers.turn(other):
                pass
        await seat.keep(EXCHANGE)
    async with workers.turn(other) as seat:
        assert [message.id for message in seat.conversation.messages] == ["q", "a"]
    assert workers.idle()


@pytest.mark.parametrize("other", [0, 1], ids=["same worker", "another worker"])
async def test_a_turn_that_may_wait_comes_after_the_first(other: int) -> None:
    workers = Workers()

    async def second() -> list[str]:
        async with workers.turn(other, wait_s=PATIENCE_S) as seat:
            return [message.id for message in seat.conversation.messages]

    async with workers.turn(0) as seat:
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await seat.keep(EXCHANGE)
        await seat.leave()
        assert await waiting == ["q", "a"]


@pytest.mark.parametrize("other", [0, 1], ids=["same worker", "another worker"])
async def test_a_turn_has_a_moment_to_end(other: int) -> None:
    workers = Workers()

    async def second() -> list[str]:
        async with workers.turn(other) as seat:
            return [message.id for message in seat.conversation.messages]

    async with workers.turn(0) as seat:
        waiting = asyncio.create_task(second())
        for _ in range(20):
            await asyncio.sleep(0)
        await seat.keep(EXCHANGE)
        await seat.leave()
        assert await waiting == ["q", "a"]


async def test_waiting_for_another_worker_ends() -> None:
    workers = Workers()
    async with workers.turn(0):
        with pytest.raises(ConversationBusy):
            async with workers.turn(1, wait_s=0.2):
                pass
    async with workers.turn(1):
        pass


async def test_many_workers_take_turns_and_lose_nothing() -> None:
    workers = Workers(4)

    async def turn(number: int) -> None:
        async with workers.turn(number % 4, wait_s=PATIENCE_S) as seat:
            length = len(seat.conversation.messages)
            await asyncio.sleep(0)
            await seat.keep([Message(f"{length}", "user", "?", 1.0)])

    await asyncio.gather(*map(turn, range(40)))
    found = await workers.store.load(KEY, messages=100)
    assert found.length == 40
    assert workers.idle()


async def test_a_lease_is_renewed_while_its_turn_runs() -> None:
    workers = Workers(lease_s=2.0)
    async with workers.turn(0) as seat:
        await until(lambda: workers.store.renewals >= 3)
        with pytest.raises(ConversationBusy):
            async with workers.turn(1):
                pass
        await seat.keep(EXCHANGE)
    seen = workers.store.renewals
    await asyncio.sleep(0.8)
    assert workers.store.renewals == seen


async def test_a_worker_that_was_away_too_long_writes_nothing() -> None:
    workers = Workers(lease_s=0.2)
    async with workers.turn(0) as zombie:
        workers.seats[0]._leases.clear()  # stopped: it renews nothing
        await asyncio.sleep(0.3)
        async with workers.turn(1) as heir:
            with pytest.raises(Conflict):
                await zombie.keep([Message("zombie", "user", "?", 1.0)])
            await heir.keep(EXCHANGE)
    assert await workers.history() == ["q", "a"]


async def test_a_store_that_is_down_for_a_moment_costs_no_lease() -> None:
    workers = Workers(lease_s=2.0)
    async with workers.turn(0) as seat:
        workers.store.down = True
        await until(lambda: workers.store.renewals >= 1)
        workers.store.down = False
        await until(lambda: workers.store.renewals >= 4)
        with pytest.raises(ConversationBusy):
            async with workers.turn(1):
                pass
        await seat.keep(EXCHANGE)


@pytest.mark.parametrize("fault", [StoreUnavailable("down"), RuntimeError("the store's own fault")])
async def test_a_turn_that_cannot_be_stored_ends_its_lease(fault: Exception) -> None:
    workers = Workers()
    workers.store.fault = fault
    async with workers.turn(0) as seat:
        workers.store.down = True
        with pytest.raises(type(fault)):
            await seat.keep(EXCHANGE)
        workers.store.down = False
        await seat.leave()
    assert workers.idle()
    await until(lambda: workers.store.releases == 1)


async def test_a_turn_that_cannot_begin_leaves_the_line() -> None:
    workers = Workers()
    workers.store.down = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            async with workers.turn(0):
                pass
    workers.store.down = False
    async with workers.turn(0):
        pass


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("step", range(12))
async def test_a_client_that_leaves_at_any_moment_leaves_no_lease(step: int, writes: bool) -> None:
    workers = Workers()
    workers.store.pause_s = 0.004
    kept = asyncio.Event()

    async def turn() -> None:
        async with workers.turn(0) as seat:
            await asyncio.sleep(0.004)
            if writes:
                await seat.keep(EXCHANGE)
                kept.set()

    task = asyncio.create_task(turn())
    await asyncio.sleep(0.002 * step)
    task.cancel()
    await asyncio.wait([task])
    workers.store.pause_s = 0
    assert workers.idle()
    async with workers.turn(1) as seat:
        assert [message.id for message in seat.conversation.messages] in ([], ["q", "a"])
        assert seat.conversation.messages or not kept.is_set()


async def test_a_repeated_request_gets_the_record_and_is_in_nobodys_way() -> None:
    workers = Workers()
    async with workers.turn(0, once=ONCE) as seat:
        assert seat.takes_record
        await seat.keep(EXCHANGE, b"reply")
    async with workers.turn(1, once=ONCE) as seat:
        assert (seat.recorded, seat.takes_record) == (b"reply", False)
        await seat.leave()
        async with workers.turn(1) as next_seat:
            assert not next_seat.takes_record
        with pytest.raises(RuntimeError):
            await seat.keep(EXCHANGE)
    assert await workers.history() == ["q", "a"]


async def test_a_repeated_request_that_may_wait_gets_the_first_ones_record() -> None:
    workers = Workers()

    async def second() -> bytes | None:
        async with workers.turn(1, wait_s=PATIENCE_S, once=ONCE) as seat:
            return seat.recorded

    async with workers.turn(0, once=ONCE) as seat:
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        await seat.keep(EXCHANGE, b"reply")
    assert await waiting == b"reply"


@pytest.mark.parametrize("times", [1, 2])
async def test_work_is_not_broken_by_cancellations(times: int) -> None:
    done: list[str] = []

    async def work() -> str:
        await asyncio.sleep(0.02)
        done.append("work")
        return "result"

    async def undo(result: str) -> None:
        done.append("undo")
        await asyncio.sleep(0.02)
        done.append(result)

    task = asyncio.create_task(unbroken(work(), undo=undo))
    await asyncio.sleep(0)
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    await until(lambda: "undo" in done)
    if times > 1:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["work", "undo", "result"]


@pytest.mark.parametrize(
    ("error", "told"), [(NotFound(), []), (StoreUnavailable(), ["StoreUnavailable"])]
)
async def test_a_fault_of_the_store_that_a_cancellation_hides_is_logged(
    error: GatewayError, told: list[str]
) -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)
        raise error

    task = asyncio.create_task(unbroken(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await task
    assert [line["error"] for line in lines] == told
