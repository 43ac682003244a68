import asyncio
import random
import time

import pytest

from gateway.errors import Conflict
from gateway.messages import ConversationKey
from gateway.turn.locks import ConversationLocks

KEY = ConversationKey("acme", "widget", "c1")
LONG_S = 30.0


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_busy_conversation_conflicts_at_once() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY) as first:
        assert first.held
        with pytest.raises(Conflict, match="a turn is running"):
            async with locks.hold(KEY):
                pytest.fail("held twice")
    async with locks.hold(KEY):
        pass


@pytest.mark.parametrize(
    "other",
    [
        ConversationKey("globex", "widget", "c1"),
        ConversationKey("acme", "helper", "c1"),
        ConversationKey("acme", "widget", "c2"),
    ],
)
async def test_other_conversations_are_free(other: ConversationKey) -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY), locks.hold(other):
        assert len(locks) == 2
    assert len(locks) == 0


async def test_release_lets_the_next_turn_begin_before_the_block_ends() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY) as first:
        first.release()
        assert not first.held
        async with locks.hold(KEY) as second:
            first.release()
            assert second.held
            with pytest.raises(Conflict):
                async with locks.hold(KEY):
                    pytest.fail("held twice")
        assert len(locks) == 0
    assert len(locks) == 0


async def test_the_end_of_a_block_releases_only_its_own_hold() -> None:
    locks = ConversationLocks()
    second = locks.hold(KEY)
    async with locks.hold(KEY) as first:
        first.release()
        await second.__aenter__()
    assert second.held
    with pytest.raises(Conflict):
        async with locks.hold(KEY):
            pytest.fail("held twice")
    second.release()


async def test_an_error_in_the_block_releases() -> None:
    locks = ConversationLocks()
    with pytest.raises(ZeroDivisionError):
        async with locks.hold(KEY):
            raise ZeroDivisionError
    assert len(locks) == 0


async def test_a_hold_that_was_never_entered_releases_nothing() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY):
        locks.hold(KEY).release()
        assert len(locks) == 1


async def test_a_hold_is_entered_once() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY) as hold:
        with pytest.raises(RuntimeError):
            await hold.__aenter__()


async def test_those_who_wait_come_in_the_order_of_their_asking() -> None:
    locks = ConversationLocks()
    order: list[int] = []

    async def turn(number: int) -> None:
        async with locks.hold(KEY, LONG_S):
            order.append(number)
            await asyncio.sleep(0)

    async with locks.hold(KEY):
        turns = [asyncio.create_task(turn(number)) for number in range(10)]
        await settle()
        assert order == []
    await asyncio.gather(*turns)
    assert order == list(range(10))
    assert len(locks) == 0


async def test_a_newcomer_does_not_overtake() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY) as first:
        waiting = asyncio.create_task(locks.hold(KEY, LONG_S).__aenter__())
        await settle()
        first.release()
        with pytest.raises(Conflict):
            async with locks.hold(KEY):
                pytest.fail("overtook the one in line")
        (await waiting).release()
    assert len(locks) == 0


async def test_waiting_ends_with_a_conflict_when_the_time_is_up() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY):
        began = time.perf_counter()
        with pytest.raises(Conflict):
            async with locks.hold(KEY, 0.05):
                pytest.fail("held twice")
        assert 0.04 < time.perf_counter() - began < 5
        waiting = asyncio.create_task(locks.hold(KEY, LONG_S).__aenter__())
        await settle()
    (await waiting).release()
    assert len(locks) == 0


async def test_one_who_is_leaving_is_waited_for_and_whoever_comes_next_is_not() -> None:
    locks = ConversationLocks()
    gone = False
    async with locks.hold(KEY, leaving=lambda: gone):
        with pytest.raises(Conflict):
            async with locks.hold(KEY):
                pytest.fail("held twice")
        gone = True
        waiting = asyncio.create_task(locks.hold(KEY).__aenter__())
        await settle()
        assert not waiting.done()
    following = await waiting
    with pytest.raises(Conflict):
        async with locks.hold(KEY):
            pytest.fail("held twice")
    following.release()
    assert len(locks) == 0


async def test_a_full_line_conflicts_at_once() -> None:
    locks = ConversationLocks(waiters=3)
    async with locks.hold(KEY):
        waiting = [asyncio.create_task(locks.hold(KEY, LONG_S).__aenter__()) for _ in range(3)]
        await settle()
        with pytest.raises(Conflict):
            async with locks.hold(KEY, LONG_S):
                pytest.fail("the line was full")
        waiting.pop().cancel()
        await settle()
        waiting.append(asyncio.create_task(locks.hold(KEY, LONG_S).__aenter__()))
        await settle()
        assert not any(task.done() for task in waiting)
    for task in waiting:
        (await task).release()
    assert len(locks) == 0


async def test_one_who_is_cancelled_leaves_the_line() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY):
        first, second = (
            asyncio.create_task(locks.hold(KEY, LONG_S).__aenter__()) for _ in range(2)
        )
        await settle()
        first.cancel()
        await settle()
    (await second).release()
    assert first.cancelled()
    assert len(locks) == 0


async def test_one_who_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    locks = ConversationLocks()
    async with locks.hold(KEY) as hold:
        first, second = (
            asyncio.create_task(locks.hold(KEY, LONG_S).__aenter__()) for _ in range(2)
        )
        await settle()
        hold.release()
        first.cancel()
        (await second).release()
    assert first.cancelled()
    assert len(locks) == 0


async def test_random_cancellation_leaves_nothing_held() -> None:
    chance = random.Random(7)
    locks = ConversationLocks(waiters=50)
    keys = [KEY, KEY._replace(id="c2")]
    running: set[ConversationKey] = set()
    finished = 0

    async def turn(key: ConversationKey) -> None:
        nonlocal finished
        async with locks.hold(key, chance.choice([0.0, 0.001, LONG_S])) as hold:
            assert key not in running
            running.add(key)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                running.discard(key)
            if chance.random() < 0.5:
                hold.release()
            finished += 1

    for _ in range(200):
        turns = [asyncio.create_task(turn(chance.choice(keys))) for _ in range(20)]
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        for task in turns:
            if chance.random() < 0.4:
                task.cancel()
        results = await asyncio.gather(*turns, return_exceptions=True)
        assert all(
            result is None or isinstance(result, Conflict | asyncio.CancelledError)
            for result in results
        )
        assert len(locks) == 0
    assert finished > 500
