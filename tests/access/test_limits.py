import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import count

import pytest

from gateway.access.claims import SLOT_S, Claim, Shortage, Slot, Take
from gateway.access.limits import Allowance, Held, Limits
from gateway.errors import RateLimited, StoreUnavailable
from gateway.messages import Principal, Usage
from gateway.stores.ledger import MemoryLedger
from tests.turn.playbook import until

SITE = Principal("acme", "site", "default")
OTHER_KEY = Principal("acme", "app", "default")
OTHER_TENANT = Principal("globex", "site", "default")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counts:
    def __init__(self) -> None:
        self.limits: list[str] = []
        self.unchecked_requests = 0

    def limited(self, limit: str) -> None:
        self.limits.append(limit)

    def unchecked(self) -> None:
        self.unchecked_requests += 1


class Gone:
    """A ledger that cannot be reached."""

    renewals = 0

    async def reserve(self, claim: Claim) -> Shortage | None:
        raise StoreUnavailable("down")

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        raise StoreUnavailable("down")

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        self.renewals += 1
        raise StoreUnavailable("down")


class Slow(MemoryLedger):
    """A ledger whose answers come when `gate` is set: what they are about has happened by then,
    or in `settle` has not."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.gate = asyncio.Event()
        self.gate.set()
        self.renewed: list[str] = []
        self.settled = 0
        self.faults = 0

    async def reserve(self, claim: Claim) -> Shortage | None:
        short = await super().reserve(claim)
        await self.gate.wait()
        return short

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        await self.gate.wait()
        await super().settle(claim, refunds)
        self.settled += 1

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("planted")
        self.renewed += [claim.holder for claim in claims]
        await super().renew(claims)


class Rig:
    """Limits with a clock that stands still until it is told."""

    def __init__(
        self,
        tenants: dict[str, Allowance],
        keys: dict[tuple[str, str], Allowance] | None = None,
        visitors: dict[str, Allowance] | None = None,
    ) -> None:
        self.clock = Clock()
        self.counts = Counts()
        self.ledger = Slow(self.clock)
        self.limits = Limits(
            tenants, keys or {}, visitors or {}, self.ledger, self.counts, _names()
        )

    def holds(self, visitor: str) -> AbstractAsyncContextManager[Held]:
        """A turn of that visitor, which runs until the end of the block."""
        return self.limits.admitted(SITE, visitor=visitor, body_bytes=40, max_tokens=100)

    async def ends(
        self,
        principal: Principal = SITE,
        *,
        usage: Usage | None = None,
        deltas: int = 0,
        visitor: str | None = None,
        body_bytes: int = 40,
    ) -> bool:
        """Whether a turn is admitted; it ends at once and costs what is given."""
        try:
            async with self.limits.admitted(
                principal, visitor=visitor, body_bytes=body_bytes, max_tokens=100
            ) as held:
                held.spend(usage, deltas)
        except RateLimited:
            return False
        return True

    async def admits(
        self, principal: Principal = SITE, *, tries: int, visitor: str | None = None
    ) -> int:
        """How many of so many tries are admitted."""
        return sum([await self.ends(principal, visitor=visitor) for _ in range(tries)])


def _names() -> Callable[[], str]:
    numbers = count()
    return lambda: f"holder-{next(numbers)}"


async def test_a_burst_gets_the_whole_bucket_and_no_more() -> None:
    rig = Rig({"acme": Allowance(requests_per_minute=10)})
    assert await rig.admits(tries=50) == 10
    assert rig.counts.limits == ["requests_per_minute"] * 40


async def test_the_bucket_refills_by_a_sixtieth_a_second() -> None:
    rig = Rig({"acme": Allowance(requests_per_minute=60)})
    await rig.admits(tries=60)
    rig.clock.now += 3
    assert await rig.admits(tries=60) == 3


async def test_the_refusal_says_when_the_next_request_fits() -> None:
    rig = Rig({"acme": Allowance(requests_per_minute=6)})
    await rig.admits(tries=6)
    rig.clock.now += 4
    with pytest.raises(RateLimited) as caught:
        async with rig.limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1):
            raise AssertionError("it was admitted")
    assert caught.value.retry_after == pytest.approx(6.0)


async def test_a_key_has_its_own_bucket_within_its_tenants() -> None:
    allowed = Allowance(requests_per_minute=5), Allowance(requests_per_minute=2)
    rig = Rig({"acme": allowed[0]}, {("acme", "site"): allowed[1]})
    assert await rig.admits(SITE, tries=9) == 2
    assert await rig.admits(OTHER_KEY, tries=9) == 3


async def test_a_refused_request_takes_from_no_bucket() -> None:
    allowed = Allowance(requests_per_minute=5), Allowance(requests_per_minute=1)
    rig = Rig({"acme": allowed[0]}, {("acme", "site"): allowed[1]})
    await rig.admits(SITE, tries=50)
    assert await rig.admits(OTHER_KEY, tries=9) == 4


async def test_another_tenant_is_not_touched() -> None:
    one = Allowance(requests_per_minute=1)
    rig = Rig({"acme": one, "globex": one})
    await rig.admits(SITE, tries=5)
    assert await rig.admits(OTHER_TENANT, tries=5) == 1


async def test_every_visitor_of_a_tenant_has_a_bucket() -> None:
    rig = Rig({}, visitors={"acme": Allowance(requests_per_minute=2)})
    assert await rig.admits(tries=5, visitor="203.0.113.1") == 2
    assert await rig.admits(tries=5, visitor="203.0.113.2") == 2
    assert set(rig.counts.limits) == {"requests_per_minute_per_client"}


async def test_who_has_no_address_has_no_visitors_limit() -> None:
    rig = Rig({}, visitors={"acme": Allowance(requests_per_minute=1)})
    assert await rig.admits(tries=5, visitor=None) == 5


async def test_every_visitor_of_a_tenant_has_turns_at_once_of_its_own() -> None:
    rig = Rig({}, visitors={"acme": Allowance(concurrent_turns=2)})
    one, other = "203.0.113.1", "203.0.113.2"
    async with rig.holds(one), rig.holds(one):
        assert not await rig.ends(visitor=one)
        assert await rig.ends(visitor=other)
    assert await rig.ends(visitor=one)
    assert rig.counts.limits == ["concurrent_turns_per_client"]


async def test_every_visitor_of_a_tenant_has_tokens_that_are_settled() -> None:
    rig = Rig({}, visitors={"acme": Allowance(tokens_per_minute=200)})
    one, other = "203.0.113.1", "203.0.113.2"
    assert await rig.ends(visitor=one, deltas=70)  # 80 of 200
    assert await rig.ends(visitor=one)  # nothing generated, nothing to pay
    assert await rig.ends(visitor=one, deltas=70)  # 160
    assert not await rig.ends(visitor=one, deltas=70)
    assert await rig.ends(visitor=other, deltas=70)
    assert rig.counts.limits == ["tokens_per_minute_per_client"]


async def test_tokens_are_claimed_at_once_and_settled_by_the_usage() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=1000)})
    for _ in range(9):  # 110 claimed (10 of input, 100 of output), 105 used
        assert await rig.ends(usage=Usage(5, 100))
    assert not await rig.ends(usage=Usage(5, 100)), "55 are left of 1000"


async def test_a_turn_without_usage_costs_its_input_and_its_deltas() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=200)})
    assert await rig.ends(deltas=70)  # 80 of 200
    assert await rig.ends(deltas=70)  # 160
    assert not await rig.ends(deltas=70)


async def test_a_body_of_undeclared_length_is_claimed_when_it_is_read() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=300)})
    async with rig.limits.admitted(SITE, visitor=None, body_bytes=None, max_tokens=100) as held:
        assert await rig.ends(), "200 are left"
        await held.measured(400)
        assert not await rig.ends(), "100 are left"
        held.spend(None, 5)
    assert await rig.ends(usage=Usage(85, 0)), "195 are left"
    assert await rig.ends(), "110 are left"
    assert not await rig.ends(body_bytes=44)


async def test_a_body_of_undeclared_length_that_is_too_much_is_refused_and_costs_nothing() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=300)})
    assert await rig.ends(usage=Usage(100, 0))
    with pytest.raises(RateLimited):
        async with rig.limits.admitted(SITE, visitor=None, body_bytes=None, max_tokens=100) as held:
            await held.measured(404)
    assert rig.counts.limits == ["tokens_per_minute"]
    assert await rig.ends(body_bytes=400, usage=Usage(0, 0)), "200 are left"


async def test_a_declared_length_is_claimed_once() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=220)})
    async with rig.limits.admitted(SITE, visitor=None, body_bytes=40, max_tokens=100) as held:
        await held.measured(40)
        assert await rig.ends(), "110 are left"


async def test_a_turn_that_generated_nothing_costs_no_token() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=110)})
    assert await rig.admits(tries=20) == 20


async def test_a_turn_that_costs_more_than_it_claimed_is_taken_from_the_next_ones() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=600)})
    assert await rig.ends(usage=Usage(400, 400))  # overdrawn by 200
    rig.clock.now += 30
    assert not await rig.ends(), "100 of the 110"
    rig.clock.now += 1
    assert await rig.ends()


async def test_a_request_larger_than_the_bucket_is_admitted_when_it_is_full() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=50)})
    assert await rig.ends(usage=Usage(30, 100))
    assert not await rig.ends()
    rig.clock.now += 120
    assert await rig.ends()


async def test_a_request_larger_than_the_bucket_costs_what_it_used() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=100)})
    assert await rig.ends(body_bytes=4000, usage=Usage(0, 60))
    assert not await rig.ends(), "40 of 100 are left"
    rig.clock.now += 36
    assert await rig.ends()


async def test_what_is_given_back_twice_is_given_back_once() -> None:
    rig = Rig({"acme": Allowance(tokens_per_minute=330)})
    async with (
        rig.limits.admitted(SITE, visitor=None, body_bytes=40, max_tokens=100),
        rig.limits.admitted(SITE, visitor=None, body_bytes=40, max_tokens=100) as second,
        rig.limits.admitted(SITE, visitor=None, body_bytes=40, max_tokens=100),
    ):
        await second.give_back()
        await second.give_back()
        assert await rig.ends(usage=Usage(110, 0))
        assert not await rig.ends()


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


async def test_without_its_ledger_a_limit_on_requests_lets_through_and_counts_it() -> None:
    counts, gone = Counts(), Gone()
    allowed = Allowance(requests_per_minute=1, concurrent_turns=1)
    limits = Limits({"acme": allowed}, {}, {}, gone, counts, _names())
    async with limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1) as held:
        assert (held.claim.takes, held.claim.slots) == ((), ())
        await limits.renew()
    assert counts.unchecked_requests == 1
    assert gone.renewals == 0, "nothing is held"


async def test_without_its_ledger_a_limit_on_tokens_refuses() -> None:
    limits = Limits({"acme": Allowance(tokens_per_minute=1)}, {}, {}, Gone(), Counts(), _names())
    with pytest.raises(StoreUnavailable):
        async with limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1):
            raise AssertionError("it was admitted")


async def test_nothing_is_asked_of_the_ledger_where_nothing_is_limited() -> None:
    limits = Limits({}, {}, {}, Gone(), Counts(), _names())
    async with limits.admitted(SITE, visitor="203.0.113.1", body_bytes=1, max_tokens=None) as held:
        assert held.claim.takes == ()


async def test_a_call_that_runs_no_turn_takes_a_request_and_nothing_else() -> None:
    allowed = Allowance(requests_per_minute=2, tokens_per_minute=1, concurrent_turns=1)
    rig = Rig({"acme": allowed})
    await rig.limits.admit_call(SITE, visitor=None)
    await rig.limits.admit_call(SITE, visitor=None)
    with pytest.raises(RateLimited):
        await rig.limits.admit_call(SITE, visitor=None)
    assert rig.counts.limits == ["requests_per_minute"]
