import asyncio
from contextlib import ExitStack

import pytest

from gateway.errors import Drained, Draining, GatewayError, Overloaded
from gateway.turn.registry import RunningTurns
from tests.turn.playbook import until


async def test_a_full_worker_takes_no_more_until_a_place_is_free() -> None:
    turns = RunningTurns(1)
    with turns.place("acme"):
        with pytest.raises(Overloaded), turns.place("acme"):
            pass
        assert turns.count == 1
    with turns.place("acme"):
        pass
    assert turns.count == 0


async def test_a_flooding_tenant_leaves_room_for_others() -> None:
    turns = RunningTurns(20, tenants=4)
    with ExitStack() as stack:
        for _ in range(18):
            stack.enter_context(turns.place("flood"))
        assert turns.crowded
        with pytest.raises(Overloaded), turns.place("flood"):
            pass
        for tenant in ("acme", "other"):
            stack.enter_context(turns.place(tenant))
        with pytest.raises(Overloaded), turns.place("third"):
            pass
    with ExitStack() as stack:
        for _ in range(18):
            stack.enter_context(turns.place("acme"))
        stack.enter_context(turns.place("flood"))  # what it held once counts no more


async def test_the_only_tenant_has_all_places() -> None:
    turns = RunningTurns(20, tenants=1)
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(turns.place("acme"))
        with pytest.raises(Overloaded), turns.place("acme"):
            pass


async def test_after_the_notice_new_turns_still_come() -> None:
    turns = RunningTurns(1)
    turns.notice()
    assert turns.stopping
    with turns.place("acme"):
        pass


async def test_a_draining_worker_refuses_and_waits_for_the_running_turns() -> None:
    turns = RunningTurns(2)
    release = asyncio.Event()

    async def turn() -> None:
        with turns.place("acme"):
            await release.wait()

    running = asyncio.create_task(turn())
    await asyncio.sleep(0)
    drained = asyncio.create_task(turns.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(Draining), turns.place("acme"):
        pass
    release.set()
    assert await drained
    await running


async def test_turns_that_outlast_the_drain_are_told_to_end() -> None:
    turns = RunningTurns(1)
    faults: list[GatewayError] = []
    release = asyncio.Event()

    def stop(fault: GatewayError) -> None:
        faults.append(fault)
        release.set()

    async def turn() -> None:
        with turns.place("acme"), turns.running(stop):
            await release.wait()

    running = asyncio.create_task(turn())
    await asyncio.sleep(0)
    assert await turns.drain(0.05)
    assert isinstance(faults[0], Drained)
    await running


async def test_a_turn_that_does_not_end_does_not_hold_the_drain_for_ever() -> None:
    turns = RunningTurns(1)
    with turns.place("acme"):
        assert not await turns.drain(0.01, settle_s=0.01)


async def test_a_request_that_waited_until_the_drain_was_over_begins_no_turn() -> None:
    turns = RunningTurns(2)
    with turns.place("acme"):
        turns.check()
        draining = asyncio.create_task(turns.drain(0.05))
        await asyncio.sleep(0)
        turns.check()
        await until(lambda: not lets_in(turns))
    assert await draining


def lets_in(turns: RunningTurns) -> bool:
    try:
        turns.check()
    except Draining:
        return False
    return True
