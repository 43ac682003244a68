from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.breaker import FAILURES, Balancer, Place, Target

CAP = 100


def balancer(*weights: int, cap: int = CAP) -> Balancer:
    names = "abcdefgh"
    targets = [Target(names[place], weight) for place, weight in enumerate(weights)]
    return Balancer(targets, max_in_flight=cap)


def taken(balance: Balancer, now: float = 0.0, **options: object) -> Place:
    place = balance.take(now, **options)  # type: ignore[arg-type]  # tried, retry
    assert place is not None
    return place


def fail(balance: Balancer, name: str, times: int = FAILURES, now: float = 0.0) -> None:
    """Fails calls of one target, whichever others the balancer offers between them."""
    target = next(target for target in balance.targets if target.name == name)
    for _ in range(times):
        target.in_flight += 1
        balance.ended(Place(target, now), now, failed=True, wait=None)


def good(balance: Balancer, place: Place, now: float = 0.0) -> None:
    balance.ended(place, now, failed=False, wait=None)


def offered(balance: Balancer, now: float, times: int = 30) -> Counter[str]:
    names: Counter[str] = Counter()
    for _ in range(times):
        place = taken(balance, now)
        names[place.target.name] += 1
        balance.ended(place, now, failed=None, wait=None)
    return names


# Choice.


def test_idle_targets_take_turns_by_weight() -> None:
    assert offered(balancer(1, 3), 0.0, 40) == {"a": 10, "b": 30}


def test_busy_targets_are_filled_by_weight() -> None:
    balance = balancer(1, 3)
    held = Counter(taken(balance).target.name for _ in range(40))
    assert held == {"a": 10, "b": 30}


def test_the_target_with_fewer_calls_for_its_weight_is_next() -> None:
    balance = balancer(1, 1)
    slow = taken(balance).target
    assert {taken(balance).target.name for _ in range(1)} == {"a", "b"} - {slow.name}


def test_a_full_target_is_passed_over_and_full_targets_give_no_place() -> None:
    balance = balancer(1, 1, cap=2)
    held = [taken(balance) for _ in range(4)]
    assert Counter(place.target.name for place in held) == {"a": 2, "b": 2}
    assert balance.take(0.0) is None
    good(balance, held[0])
    assert taken(balance).target is held[0].target


# Ejection.


def test_failures_in_a_row_eject_a_target_and_fewer_do_not() -> None:
    balance = balancer(1, 1)
    fail(balance, "a", FAILURES - 1)
    assert offered(balance, 0.0)["a"] > 0
    fail(balance, "a", 1)
    assert offered(balance, 0.0) == {"b": 30}


def test_a_good_end_between_failures_starts_the_count_anew() -> None:
    balance = balancer(1)
    for _ in range(3):
        fail(balance, "a", FAILURES - 1)
        good(balance, taken(balance))
    assert balance.targets[0].opened_at is None


def test_a_first_token_alone_is_no_good_end() -> None:
    balance = balancer(1, 1)
    for _ in range(FAILURES):
        place = taken(balance, tried=("b",))
        balance.began(place, 0.0)
        balance.ended(place, 0.0, failed=True, wait=None)
    assert offered(balance, 0.0) == {"b": 30}


def test_what_says_nothing_about_a_target_is_not_counted() -> None:
    balance = balancer(1)
    fail(balance, "a", FAILURES - 1)
    balance.ended(taken(balance), 0.0, failed=None, wait=None)
    assert (balance.targets[0].failures, balance.targets[0].opened_at) == (FAILURES - 1, None)


@pytest.mark.parametrize("ejections", range(1, 13))
def test_each_ejection_is_longer_up_to_five_minutes(ejections: int) -> None:
    balance, now = balancer(1, 1), 0.0
    target = balance.targets[0]
    fail(balance, "a")
    for number in range(1, ejections + 1):
        length = min(30.0 * number, 300.0)
        assert not target.usable(now + length - 0.1)
        now += length
        assert target.usable(now)
        probe = next(p for p in (taken(balance, now) for _ in range(3)) if p.target is target)
        assert probe.probe
        balance.ended(probe, now, failed=True, wait=None)
    assert not target.usable(now + 1)


def test_one_call_at_a_time_tries_a_half_open_target() -> None:
    balance = balancer(1, 1)
    fail(balance, "a")
    held = [taken(balance, 30.0) for _ in range(20)]
    assert Counter(place.target.name for place in held) == {"a": 1, "b": 19}


def test_the_first_token_of_a_probe_brings_its_target_back() -> None:
    balance = balancer(1, 1)
    fail(balance, "a")
    probe = next(p for p in (taken(balance, 30.0) for _ in range(3)) if p.probe)
    balance.began(probe, 31.0)
    held = [taken(balance, 31.0) for _ in range(20)]
    assert Counter(place.target.name for place in held)["a"] > 5


def test_a_probe_that_says_nothing_lets_another_try() -> None:
    balance = balancer(1, 1)
    fail(balance, "a")
    probe = next(p for p in (taken(balance, 30.0) for _ in range(3)) if p.probe)
    balance.ended(probe, 30.0, failed=None, wait=None)
    assert next(p for p in (taken(balance, 30.0) for _ in range(3)) if p.probe).target.name == "a"


def test_calls_from_before_an_ejection_neither_end_nor_prolong_it() -> None:
    balance = balancer(1, 1)
    early = [taken(balance, 0.0) for _ in range(4)]
    mine = [place for place in early if place.target.name == "a"]
    fail(balance, "a", now=5.0)
    until = balance.targets[0].open_until
    balance.began(mine[0], 6.0)
    balance.ended(mine[0], 7.0, failed=False, wait=None)
    balance.ended(mine[1], 8.0, failed=True, wait=None)
    assert (balance.targets[0].open_until, balance.targets[0].ejections) == (until, 1)
    assert not balance.targets[0].usable(20.0)


def test_a_target_that_was_good_for_as_long_as_it_was_out_begins_anew() -> None:
    for good_for, ejections in ((29.0, 2), (31.0, 1)):
        balance = balancer(1, 1)
        fail(balance, "a")
        balance.targets[0].bring_back(30.0)
        fail(balance, "a", now=30.0 + good_for)
        assert balance.targets[0].ejections == ejections


def test_with_every_target_ejected_all_are_used() -> None:
    balance = balancer(1, 1, 1)
    for name in "abc":
        fail(balance, name)
    assert balance.none_ready(1.0)
    assert offered(balance, 1.0) == {"a": 10, "b": 10, "c": 10}


def test_a_good_call_of_an_outage_brings_its_target_back() -> None:
    balance = balancer(1, 1)
    for name in "ab":
        fail(balance, name)
    place = taken(balance, 1.0)
    balance.began(place, 2.0)
    held = [taken(balance, 2.0) for _ in range(20)]
    assert {one.target for one in held} == {place.target}


# Rest.


def test_a_target_that_asked_for_a_pause_gets_one_while_another_can_take_the_call() -> None:
    balance = balancer(1, 1)
    place = taken(balance, 0.0)
    balance.ended(place, 0.0, failed=None, wait=7.0)
    other = ({"a", "b"} - {place.target.name}).pop()
    assert offered(balance, 6.9) == {other: 30}
    assert offered(balance, 7.0)[place.target.name] > 0


def test_a_lone_target_that_asked_for_a_pause_is_called_all_the_same() -> None:
    balance = balancer(1)
    balance.ended(taken(balance), 0.0, failed=None, wait=7.0)
    assert taken(balance, 1.0).target.name == "a"


def test_targets_that_are_out_or_at_rest_are_not_ready() -> None:
    balance = balancer(1, 1)
    fail(balance, "a")
    assert not balance.none_ready(0.0)
    balance.ended(taken(balance), 0.0, failed=None, wait=7.0)
    assert balance.none_ready(6.9)
    assert not balance.none_ready(7.0)


# Retries.


def test_a_retry_goes_to_a_target_that_was_not_called() -> None:
    balance = balancer(1, 1, 1)
    assert balance.next_try(0.0, tried=("a",), same=True) == 0.0
    names = {taken(balance, tried=("a",)).target.name for _ in range(2)}
    assert names == {"b", "c"}
    assert taken(balance, tried=("a", "b")).target.name == "c"


@pytest.mark.parametrize(
    ("targets", "tried", "same", "allowed"),
    [
        (1, "a", True, True),
        (1, "a", False, False),
        (1, "aa", True, False),
        (2, "a", False, True),
        (2, "ab", True, False),
        (3, "ab", True, True),
        (3, "abc", True, False),
        (4, "abc", True, False),
    ],
)
def test_how_often_a_turn_may_call(targets: int, tried: str, same: bool, allowed: bool) -> None:
    balance = balancer(*[1] * targets)
    wait = balance.next_try(0.0, tried=tuple(tried), same=same)
    assert (wait is not None) == allowed


def test_no_retry_goes_to_a_target_that_is_failing() -> None:
    balance = balancer(1, 1)
    fail(balance, "b")
    assert balance.next_try(0.0, tried=("a",), same=True) == 0.0  # the same, for want of another
    fail(balance, "a")
    assert balance.next_try(0.0, tried=("a",), same=True) is None


def test_a_retry_is_no_probe_while_there_is_another_target() -> None:
    balance = balancer(1, 1, 1)
    fail(balance, "b")
    held = [taken(balance, 30.0, tried=("a",), retry=True) for _ in range(3)]
    assert {one.target.name for one in held} == {"c"}


def test_the_same_target_is_not_called_again_at_once() -> None:
    balance = balancer(1, 1)
    assert balance.next_try(0.0, tried=("a",), same=True, backoff_s=0.1) == 0.0
    fail(balance, "b")
    assert balance.next_try(0.0, tried=("a",), same=True, backoff_s=0.1) == 0.1


def test_a_retry_waits_for_the_pause_that_its_target_asked_for() -> None:
    balance = balancer(1)
    balance.ended(taken(balance), 10.0, failed=True, wait=4.0)
    assert balance.next_try(11.0, tried=("a",), same=True) == 3.0


@pytest.mark.parametrize(("running", "retries"), [(0, 3), (10, 3), (19, 4), (99, 20), (199, 40)])
def test_a_fifth_of_the_calls_in_flight_may_be_retries_and_at_least_three(
    running: int, retries: int
) -> None:
    balance = balancer(1, 1, cap=1000)
    for _ in range(running):
        taken(balance)
    granted = 0
    while balance.reserve_retry():
        granted += 1
    assert granted == retries
    balance.return_retry()
    assert balance.reserve_retry()


def test_the_end_of_a_retry_gives_its_part_of_the_budget_back() -> None:
    balance = balancer(1)
    for _ in range(3):
        assert balance.reserve_retry()
    assert not balance.reserve_retry()
    balance.ended(taken(balance, retry=True), 0.0, failed=True, wait=None)
    assert balance.reserve_retry()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "good", "bad", "none", "token"]),
            st.integers(0, 20),
            st.floats(0, 40),
        ),
        max_size=200,
    )
)
def test_whatever_happens_a_call_finds_a_place_and_the_counts_come_back_to_zero(
    steps: list[tuple[str, int, float]],
) -> None:
    balance, now, held = balancer(1, 2, 1), 0.0, list[Place]()
    for step, place, later in steps:
        now += later
        if step == "take":
            held.append(taken(balance, now))
        elif held and step == "token":
            balance.began(held[place % len(held)], now)
        elif held:
            failed = {"good": False, "bad": True, "none": None}[step]
            balance.ended(held.pop(place % len(held)), now, failed=failed, wait=None)
    for one in held:
        balance.ended(one, now, failed=None, wait=None)
    assert balance.in_flight == 0
    assert not any(target.probing for target in balance.targets)
