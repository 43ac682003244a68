import asyncio

from gateway.access.claims import SLOT_S, Claim, Slot
from gateway.access.limits import Allowance
from tests.access.limits_rig import SITE, Rig
from tests.turn.playbook import until


async def test_every_visitor_of_a_tenant_has_turns_at_once_of_its_own() -> None:
    rig = Rig({}, visitors={"acme": Allowance(concurrent_turns=2)})
    one, other = "203.0.113.1", "203.0.113.2"
    async with rig.holds(one), rig.holds(one):
        assert not await rig.ends(visitor=one)
        assert await rig.ends(visitor=other)
    assert await rig.ends(visitor=one)
    assert rig.counts.limits == ["concurrent_turns_per_client"]


async def test_as_many_turns_run_at_once_as_there_are_slots() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=2)})
    async with (
        rig.limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1),
        rig.limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1) as second,
    ):
        assert not await rig.ends()
        await second.give_back()
        assert await rig.ends()
    assert len(rig.ledger) == 0


async def test_the_slot_of_a_dead_holder_is_free_after_a_while() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=1)})
    claim = rig.limits.claim(SITE, visitor=None, tokens=1, holder="a worker that was killed")
    assert await rig.ledger.reserve(claim) is None
    assert not await rig.ends()
    rig.clock.now += SLOT_S
    assert await rig.ends()


async def test_a_renewed_slot_stays_its_holders() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=1)})
    claim = rig.limits.claim(SITE, visitor=None, tokens=1, holder="a long turn")
    assert await rig.ledger.reserve(claim) is None
    for _ in range(4):
        rig.clock.now += SLOT_S / 2
        await rig.ledger.renew((claim,))
    assert not await rig.ends()


async def test_running_turns_are_renewed_and_no_others() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=2)})
    async with rig.limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1) as held:
        async with rig.limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1):
            assert not await rig.ends()
        await rig.limits.renew()
    await rig.limits.renew()
    assert rig.ledger.renewed == [held.claim.holder]


async def test_slots_are_renewed_while_turns_run_even_after_a_fault() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=1)})
    rig.ledger.faults = 1
    async with (
        rig.limits.renewing(every_s=0.01),
        rig.limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1) as held,
    ):
        await until(lambda: len(rig.ledger.renewed) >= 2)
        assert set(rig.ledger.renewed) == {held.claim.holder}
        assert rig.ledger.faults == 0
    assert len(asyncio.all_tasks()) == 1


async def test_the_end_waits_for_what_is_still_being_given_back() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=1)})
    async with rig.limits.renewing():
        rig.ledger.gate.clear()
        giving_back = asyncio.create_task(
            rig.limits.settle(
                Claim("a", (), (Slot("concurrent_turns", "turns:tenant:acme", 1),)), 0
            )
        )
        await asyncio.sleep(0)
        giving_back.cancel()
        asyncio.get_running_loop().call_later(0.05, rig.ledger.gate.set)
    assert rig.ledger.settled == 1


async def test_a_request_that_goes_while_it_is_admitted_leaves_its_slot() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=1)})
    rig.ledger.gate.clear()
    asking = asyncio.create_task(rig.ends())
    await asyncio.sleep(0)
    asking.cancel()
    rig.ledger.gate.set()
    await asyncio.wait([asking])
    assert await rig.ends()


async def test_what_is_being_given_back_is_so_even_if_its_request_is_cancelled() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=1)})

    async def turn() -> None:
        async with rig.limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1):
            rig.ledger.gate.clear()

    running = asyncio.create_task(turn())
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    rig.ledger.gate.set()
    await asyncio.sleep(0)
    assert await rig.ends()


async def test_a_cancelled_turn_gives_its_slot_and_its_tokens_back() -> None:
    rig = Rig({"acme": Allowance(concurrent_turns=1, tokens_per_minute=110)})

    async def turn() -> None:
        async with rig.limits.admitted(SITE, visitor=None, body_bytes=40, max_tokens=100):
            await asyncio.sleep(60)

    running = asyncio.create_task(turn())
    await asyncio.sleep(0)
    assert not await rig.ends()
    running.cancel()
    await asyncio.wait([running])
    assert await rig.ends()
