"""The metrics of model calls, below the turn: which server was called and what came of it.

Labels are the configuration's names and `catalogue.CALL_OUTCOMES`. An outcome is the kind of the
error that ended a call; the gateway's own clocks, and refusals that are nobody's outage, have
words of their own.
"""

from collections.abc import Container, Iterable
from itertools import product
from typing import Final, NamedTuple

from gateway.errors import (
    ConnectTimeout,
    FirstTokenTimeout,
    GatewayError,
    IdleTimeout,
    TotalTimeout,
    UpstreamDenied,
    UpstreamRejected,
)
from gateway.telemetry import catalogue
from gateway.telemetry.catalogue import CALL_OUTCOMES, OTHER
from gateway.telemetry.instruments import Counter, Gauge
from gateway.telemetry.scoreboard import Scoreboard

_OUTCOMES: Final[dict[type[GatewayError], str]] = {
    ConnectTimeout: "connect_timeout",
    FirstTokenTimeout: "first_token_timeout",
    IdleTimeout: "idle_timeout",
    TotalTimeout: "total_timeout",
    UpstreamDenied: "upstream_denied",
    UpstreamRejected: "upstream_rejected",
}


class TargetLabels(NamedTuple):
    """A configured server, as the metrics name it."""

    upstream: str
    target: str


class UpstreamMetrics:
    """What is counted of calls (`transport.balance.UpstreamRecorder`)."""

    def __init__(
        self, board: Scoreboard, targets: Iterable[TargetLabels], overflow: Counter
    ) -> None:
        known = tuple(targets)
        self._upstreams = frozenset(target.upstream for target in known)
        self._targets = frozenset(target.target for target in known)
        self._overflow = overflow
        self._calls = Counter(catalogue.UPSTREAM_CALLS, board)
        self._in_flight = Gauge(catalogue.UPSTREAM_IN_FLIGHT, board)
        self._ejected = Gauge(catalogue.UPSTREAM_EJECTED, board)
        self._ejections = Counter(catalogue.UPSTREAM_EJECTIONS, board)
        self._retries = Counter(catalogue.UPSTREAM_RETRIES, board)
        self._refused = Counter(catalogue.UPSTREAM_RETRIES_REFUSED, board)
        self._fallbacks = Counter(catalogue.UPSTREAM_FALLBACKS, board)
        self._full = Counter(catalogue.UPSTREAM_FULL, board)
        for target in known:
            for metric in (self._in_flight, self._ejected, self._ejections):
                metric.labels(*target)
        for target, outcome in product(known, CALL_OUTCOMES):
            self._calls.labels(*target, outcome)
        for upstream, metric in product(
            self._upstreams, (self._retries, self._refused, self._fallbacks, self._full)
        ):
            metric.labels(upstream)

    def call_began(self, upstream: str, target: str, *, retry: bool) -> None:
        """A call has its place; `call_ended` must follow."""
        self._in_flight.labels(*self._names(upstream, target)).inc()
        if retry:
            self._retries.labels(self._name(upstream)).inc()

    def call_ended(self, upstream: str, target: str, error: GatewayError | None) -> None:
        """A call is over, well if there is no error."""
        names = self._names(upstream, target)
        self._in_flight.labels(*names).dec()
        outcome = "ok" if error is None else _OUTCOMES.get(type(error), error.kind)
        self._calls.labels(*names, self._closed("call_outcome", outcome, CALL_OUTCOMES)).inc()

    def ejected(self, upstream: str, target: str, *, out: bool) -> None:
        """A target was left out, or is back."""
        names = self._names(upstream, target)
        self._ejected.labels(*names).set(out)
        if out:
            self._ejections.labels(*names).inc()

    def no_place(self, upstream: str) -> None:
        """A call was not made: every target was full."""
        self._full.labels(self._name(upstream)).inc()

    def retry_refused(self, upstream: str) -> None:
        """A retry was left out: the budget was spent."""
        self._refused.labels(self._name(upstream)).inc()

    def fell_back(self, upstream: str) -> None:
        """A turn went on to the agent's next upstream."""
        self._fallbacks.labels(self._name(upstream)).inc()

    def _names(self, upstream: str, target: str) -> tuple[str, str]:
        return self._name(upstream), self._closed("target", target, self._targets)

    def _name(self, upstream: str) -> str:
        return self._closed("upstream", upstream, self._upstreams)

    def _closed(self, label: str, value: str, values: Container[str]) -> str:
        if value in values:
            return value
        self._overflow.labels(label).inc()
        return OTHER
