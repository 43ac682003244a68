import pytest

from gateway.access.limits import RequestLimits
from gateway.errors import RateLimited
from gateway.messages import Principal

SITE = Principal("acme", "site", "default")
OTHER_KEY = Principal("acme", "app", "default")
OTHER_TENANT = Principal("globex", "site", "default")


def admitted(limits: RequestLimits, principal: Principal, count: int, *, now: float) -> int:
    good = 0
    for _ in range(count):
        try:
            limits.admit(principal, now=now)
        except RateLimited:
            continue
        good += 1
    return good


def test_a_burst_gets_the_whole_bucket_and_no_more() -> None:
    limits = RequestLimits({"acme": 10}, {})
    assert admitted(limits, SITE, 50, now=100.0) == 10


def test_the_bucket_refills_by_a_sixtieth_a_second() -> None:
    limits = RequestLimits({"acme": 60}, {})
    admitted(limits, SITE, 60, now=100.0)
    assert admitted(limits, SITE, 60, now=103.0) == 3


def test_the_refusal_says_when_the_next_request_fits() -> None:
    limits = RequestLimits({"acme": 6}, {})
    admitted(limits, SITE, 6, now=100.0)
    with pytest.raises(RateLimited) as caught:
        limits.admit(SITE, now=104.0)
    assert caught.value.retry_after == pytest.approx(6.0)


def test_a_key_has_its_own_bucket_within_its_tenants() -> None:
    limits = RequestLimits({"acme": 5}, {("acme", "site"): 2})
    assert admitted(limits, SITE, 9, now=1.0) == 2
    assert admitted(limits, OTHER_KEY, 9, now=1.0) == 3


def test_a_refused_request_takes_from_no_bucket() -> None:
    limits = RequestLimits({"acme": 5}, {("acme", "site"): 1})
    admitted(limits, SITE, 50, now=1.0)
    assert admitted(limits, OTHER_KEY, 9, now=1.0) == 4


def test_another_tenant_is_not_touched() -> None:
    limits = RequestLimits({"acme": 1}, {})
    admitted(limits, SITE, 5, now=1.0)
    assert admitted(limits, OTHER_TENANT, 5, now=1.0) == 5
