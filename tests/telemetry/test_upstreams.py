import pytest

from gateway.errors import (
    Cancelled,
    ConnectTimeout,
    ContentFiltered,
    ContextLength,
    Deadline,
    Drained,
    FirstTokenTimeout,
    GatewayError,
    IdleTimeout,
    Internal,
    Overloaded,
    RateLimited,
    ReplyTooLong,
    TotalTimeout,
    Truncated,
    UpstreamDenied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.telemetry.catalogue import CALL_OUTCOMES
from gateway.telemetry.metrics import Metrics, ModelLabels
from gateway.telemetry.pages import Pages
from gateway.telemetry.totals import Totals
from gateway.telemetry.upstreams import TargetLabels

MAIN = TargetLabels("main", "10.0.0.1:9001/v1")
TARGET = MAIN._asdict()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(("widget",), (ModelLabels("main", "openai", "m"),), (MAIN,))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    totals = Totals()
    totals.add(metrics.board)
    return Pages(totals).registry.get_sample_value(f"chatgw_{name}", labels)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (Cancelled(), "cancelled"),
        (Deadline(), "deadline"),
        (Drained(), "drained"),
        (Internal(), "internal"),
        (ConnectTimeout(), "connect_timeout"),
        (FirstTokenTimeout(), "first_token_timeout"),
        (IdleTimeout(), "idle_timeout"),
        (TotalTimeout(), "total_timeout"),
        (UpstreamTimeout(), "upstream_timeout"),
        (UpstreamError(), "upstream_error"),
        (UpstreamProtocolError(), "upstream_error"),
        (UpstreamUnavailable(), "upstream_unavailable"),
        (UpstreamRateLimited(), "upstream_rate_limited"),
        (UpstreamDenied(), "upstream_denied"),
        (UpstreamRejected(), "upstream_rejected"),
        (Truncated(), "truncated"),
        (ReplyTooLong(), "truncated"),
        (ContentFiltered(), "content_filtered"),
        (ContextLength(), "context_length"),
        (Overloaded(), "overloaded"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_end_of_a_call_has_an_outcome_of_its_own(
    metrics: Metrics, error: GatewayError | None, outcome: str
) -> None:
    assert {
        value(metrics, "upstream_calls_total", **TARGET, outcome=it) for it in CALL_OUTCOMES
    } == {0}
    metrics.upstreams.call_began(*MAIN, retry=False)
    assert value(metrics, "upstream_in_flight", **TARGET) == 1
    metrics.upstreams.call_ended(*MAIN, error)
    assert value(metrics, "upstream_in_flight", **TARGET) == 0
    assert value(metrics, "upstream_calls_total", **TARGET, outcome=outcome) == 1
    for label in ("upstream", "target", "call_outcome"):
        assert value(metrics, "label_overflow_total", label=label) == 0


def test_what_balancing_does_is_counted(metrics: Metrics) -> None:
    told = metrics.upstreams
    told.call_began(*MAIN, retry=True)
    told.ejected(*MAIN, out=True)
    told.retry_refused("main")
    told.no_place("main")
    assert value(metrics, "upstream_retries_total", upstream="main") == 1
    assert value(metrics, "upstream_ejected", **TARGET) == 1
    assert value(metrics, "upstream_ejections_total", **TARGET) == 1
    assert value(metrics, "upstream_retries_refused_total", upstream="main") == 1
    assert value(metrics, "upstream_full_total", upstream="main") == 1
    told.ejected(*MAIN, out=False)
    assert value(metrics, "upstream_ejected", **TARGET) == 0
    assert value(metrics, "upstream_ejections_total", **TARGET) == 1


def test_a_name_that_is_not_configured_makes_no_series(metrics: Metrics) -> None:
    metrics.upstreams.call_began("?", "?", retry=False)
    metrics.upstreams.call_ended("?", "?", RateLimited())
    labels = {"upstream": "other", "target": "other", "outcome": "other"}
    assert value(metrics, "upstream_calls_total", **labels) == 1
