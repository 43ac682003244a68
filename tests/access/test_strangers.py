import pytest
from structlog.testing import capture_logs

from gateway.access.strangers import PER_MINUTE, Strangers
from gateway.errors import RateLimited

THERE = "203.0.113.7"


class Rig:
    """Strangers with a clock that stands still until it is told."""

    def __init__(self, workers: int = 1) -> None:
        self.now = 1000.0
        self.limits: list[str] = []
        self.strangers = Strangers(self, workers=workers, clock=lambda: self.now)

    def limited(self, limit: str) -> None:
        self.limits.append(limit)

    def told(self, times: int, visitor: str | None = THERE) -> int:
        """How many of so many wrong credentials are told that they are wrong."""
        return [self.throttled(visitor) for _ in range(times)].count(None)

    def throttled(self, visitor: str | None = THERE) -> float | None:
        """The wait that one more wrong credential is told; None if it is told that it is wrong."""
        try:
            self.strangers.count(visitor)
        except RateLimited as error:
            return error.retry_after
        return None


def test_a_thousand_wrong_credentials_are_throttled_and_counted() -> None:
    rig = Rig()
    assert rig.told(1000) == PER_MINUTE
    assert rig.limits == ["wrong_credentials"] * (1000 - PER_MINUTE)


def test_another_address_is_not_touched() -> None:
    rig = Rig()
    rig.told(1000)
    assert rig.throttled("203.0.113.8") is None
    assert rig.throttled(None) is None


def test_the_refusal_says_when_the_next_one_is_judged_and_keeps_its_word() -> None:
    rig = Rig()
    rig.told(1000)
    assert rig.throttled() == pytest.approx(60 / PER_MINUTE)
    rig.now += 60 / PER_MINUTE * 10
    assert rig.told(1000) == 10


def test_the_workers_of_a_gateway_share_the_rate() -> None:
    assert Rig(workers=4).told(1000) == PER_MINUTE / 4
    assert Rig(workers=256).told(1000) == 30


def test_addresses_are_forgotten_after_a_minute() -> None:
    rig = Rig()
    for number in range(500):
        rig.throttled(f"visitor {number}")
    rig.now += 30
    rig.throttled("later")
    assert len(rig.strangers) == 501
    rig.now += 31
    rig.throttled()
    assert len(rig.strangers) == 2


def test_however_many_addresses_come_few_are_remembered_and_busy_ones_are_among_them() -> None:
    rig = Rig()
    rig.told(PER_MINUTE)
    for number in range(30_000):
        rig.throttled(f"visitor {number}")
        if number % 5000 == 0:
            assert rig.throttled() is not None
    assert len(rig.strangers) == 10_000


def test_an_operator_is_told_the_address_once() -> None:
    rig = Rig()
    with capture_logs() as lines:
        for _ in range(3):
            rig.told(1000)
            rig.now += 20
    assert [(line["event"], line["visitor"]) for line in lines] == [("wrong_credentials", THERE)]
