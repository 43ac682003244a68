import pytest

from gateway.access.limits import Allowance, Limits
from gateway.errors import RateLimited, StoreUnavailable
from gateway.messages import Usage
from tests.access.limits_rig import OTHER_KEY, OTHER_TENANT, SITE, Counts, Gone, Rig, names


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


async def test_without_its_ledger_a_limit_on_requests_lets_through_and_counts_it() -> None:
    counts, gone = Counts(), Gone()
    allowed = Allowance(requests_per_minute=1, concurrent_turns=1)
    limits = Limits({"acme": allowed}, {}, {}, gone, counts, names())
    async with limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1) as held:
        assert (held.claim.takes, held.claim.slots) == ((), ())
        await limits.renew()
    assert counts.unchecked_requests == 1
    assert gone.renewals == 0, "nothing is held"


async def test_without_its_ledger_a_limit_on_tokens_refuses() -> None:
    limits = Limits({"acme": Allowance(tokens_per_minute=1)}, {}, {}, Gone(), Counts(), names())
    with pytest.raises(StoreUnavailable):
        async with limits.admitted(SITE, visitor=None, body_bytes=1, max_tokens=1):
            raise AssertionError("it was admitted")


async def test_nothing_is_asked_of_the_ledger_where_nothing_is_limited() -> None:
    limits = Limits({}, {}, {}, Gone(), Counts(), names())
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
