"""What one worker counts, on a scoreboard that outlives it.

`catalogue.py` says which families there are. Every child whose labels are known at start is made
at start, so a scrape shows 0 before the first event and `rate()` sees it. A value out of no closed
set becomes `other`: the number of series is fixed by the configuration, whatever clients send.
"""

import platform
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from itertools import product
from time import monotonic
from typing import Final, NamedTuple

from gateway import __version__
from gateway.access.claims import LIMIT_NAMES, LimitName
from gateway.errors import ERROR_KINDS, ErrorKind
from gateway.telemetry import catalogue, logs
from gateway.telemetry.catalogue import (
    DIRECTIONS,
    ERROR_TYPES,
    HTTP_VERSIONS,
    OPERATION,
    OTHER,
)
from gateway.telemetry.instruments import Counter, Gauge, Histogram
from gateway.telemetry.scoreboard import Scoreboard
from gateway.telemetry.upstreams import TargetLabels, UpstreamMetrics
from gateway.turn.tally import OUTCOMES, Outcome, RoundTally, TurnTally

# `error.type` of OpenTelemetry, from the kind of error. Where a kind is missing it is `_OTHER`.
_ERROR_TYPE: Final[dict[ErrorKind | Outcome | None, str]] = {
    None: "",
    "ok": "",
    "guard_blocked": "",
    "client_disconnect": "cancelled",
    "cancelled": "cancelled",
    "deadline": "timeout",
    "upstream_timeout": "timeout",
    "upstream_rate_limited": "rate_limit",
    "upstream_error": "upstream_5xx",
    "upstream_unavailable": "upstream_5xx",
    "truncated": "malformed_stream",
}


class ModelLabels(NamedTuple):
    """A configured upstream, as the metrics name it."""

    upstream: str
    provider: str
    model: str


def running_versions() -> dict[str, str]:
    """The versions of what runs here: gateway, Python and Hypercorn."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "hypercorn": version("hypercorn"),
    }


class Metrics:
    """What is counted.

    `dialects`, `models` and `targets` are the closed sets of the configuration; `board` is where
    the numbers go, this process's own memory unless one is given; `dropped_lines` gives the number
    of log lines that were lost so far. All methods are cheap and never raise for a value; they may
    be called from any thread.
    """

    def __init__(
        self,
        dialects: Sequence[str],
        models: Iterable[ModelLabels],
        targets: Iterable[TargetLabels] = (),
        *,
        board: Scoreboard | None = None,
        dropped_lines: Callable[[], int] = logs.dropped_lines,
    ) -> None:
        self.board: Final = board or Scoreboard()
        self._dropped_lines = dropped_lines
        self._make_families()
        self._make_closed_sets(dialects, tuple(models))
        self.upstreams = UpstreamMetrics(self.board, targets, self._overflow)

    def _make_families(self) -> None:
        counter, gauge = partial(Counter, board=self.board), partial(Gauge, board=self.board)
        histogram = partial(Histogram, board=self.board)
        self._turns = counter(catalogue.TURNS)
        self._refused = counter(catalogue.REFUSED)
        self._limited = counter(catalogue.LIMITED)
        self._unchecked = counter(catalogue.UNCHECKED)
        self._admitted = counter(catalogue.ADMITTED)
        self._tokens = counter(catalogue.TOKENS)
        self._without_usage = counter(catalogue.WITHOUT_USAGE)
        self._cost = counter(catalogue.COST)
        self._undelivered = counter(catalogue.UNDELIVERED)
        self._build_info = gauge(catalogue.BUILD_INFO)
        self._overflow = counter(catalogue.LABEL_OVERFLOW)
        self._lines_dropped = counter(catalogue.LOG_LINES_DROPPED)
        self._turn_duration = histogram(catalogue.TURN_DURATION)
        self._first_token = histogram(catalogue.FIRST_TOKEN)
        self._client_tokens = histogram(catalogue.CLIENT_TOKENS)
        self._client_duration = histogram(catalogue.CLIENT_DURATION)
        self._client_first_chunk = histogram(catalogue.CLIENT_FIRST_CHUNK)
        self._server_duration = histogram(catalogue.SERVER_DURATION)
        self._server_first_token = histogram(catalogue.SERVER_FIRST_TOKEN)
        self._server_token_gap = histogram(catalogue.SERVER_TOKEN_GAP)

    def _make_closed_sets(self, dialects: Sequence[str], models: tuple[ModelLabels, ...]) -> None:
        """Makes every child that the configuration allows."""
        self._overflow.create(catalogue.OVERFLOW_LABELS)
        self._dialect = _ClosedSet("dialect", dialects, self._overflow)
        self._kind = _ClosedSet("kind", ERROR_KINDS, self._overflow)
        self._outcome = _ClosedSet("outcome", OUTCOMES, self._overflow)
        self._upstream = _ClosedSet("upstream", (m.upstream for m in models), self._overflow)
        self._provider = _ClosedSet("provider", (m.provider for m in models), self._overflow)
        self._model = _ClosedSet("model", (m.model for m in models), self._overflow)

        self._turns.create(dialects, OUTCOMES, HTTP_VERSIONS)
        self._refused.create((*dialects, OTHER), ERROR_KINDS)
        self._limited.create(LIMIT_NAMES)
        self._admitted.create(dialects, HTTP_VERSIONS)
        for histogram in (self._turn_duration, self._first_token):
            histogram.create(dialects)
        self._tokens.create(dialects, DIRECTIONS)
        self._without_usage.create([m.upstream for m in models])
        self._undelivered.create(dialects)
        for dialect, model in product(dialects, models):
            self._cost.labels(dialect, model.upstream, model.model)
        self._build_info.labels(*running_versions().values()).set(1)

        for provider, name in sorted({(m.provider, m.model) for m in models}):
            names = ((OPERATION,), (provider,), (name,))
            self._client_tokens.create(*names, DIRECTIONS)
            self._client_duration.create(*names, ERROR_TYPES)
            self._client_first_chunk.create(*names)
            self._server_duration.create(*names, ERROR_TYPES)
            self._server_first_token.create(*names)
            self._server_token_gap.create(*names)

    def refused(self, dialect: str, kind: str) -> None:
        """A request was refused before a turn began; `other` is for a path of no dialect."""
        # Paths of no dialect are the clients' doing, so they are no overflow.
        name = OTHER if dialect == OTHER else self._dialect.known(dialect)
        self._refused.labels(name, self._kind.known(kind)).inc()

    def limited(self, limit: LimitName) -> None:
        """A request was refused because of this limit."""
        self._limited.labels(limit).inc()

    def unchecked(self) -> None:
        """A request was let through because its limits could not be read."""
        self._unchecked.inc()

    def turn_began(self, dialect: str, http_version: str) -> None:
        """A chat request was admitted; `turn_ended` must follow, whatever happens."""
        self._admitted.labels(self._dialect.known(dialect), _version(http_version)).inc()

    def turn_ended(self, tally: TurnTally) -> None:
        """An admitted chat request is over; once per `turn_began`, with everything about it."""
        dialect = self._dialect.known(tally.dialect)
        if tally.first_delivered is not None:
            self._first_token.labels(dialect).observe(tally.first_delivered - tally.began)
        for entry in tally.rounds:
            self._round_ended(dialect, entry)
        for upstream in _upstreams_without_usage(tally):
            self._without_usage.labels(self._upstream.known(upstream)).inc()
        for upstream in tally.fallbacks:
            self.upstreams.fell_back(upstream)
        self._undelivered.labels(dialect).inc(tally.deltas - tally.delivered)
        if tally.ended is not None:
            self._turn_duration.labels(dialect).observe(tally.ended - tally.began)
            self._answered(tally, tally.ended)
        # Last: a turn that a kill leaves without this one cell is lost, and any other has ended.
        outcome = self._outcome.known(tally.outcome)
        self._turns.labels(dialect, outcome, _version(tally.http_version)).inc()

    def beat(self) -> None:
        """A sign of life; to be called several times a second by the event loop's thread."""
        self._lines_dropped.labels().set(self._dropped_lines())
        self.board.beat = monotonic()

    def total(self, name: str, *labels: str) -> float:
        """The sum of what this worker has counted of a family, of all children that have every one
        of these label values."""
        return sum(
            self.board.cells[first]
            for first, (family, values) in self.board.series()
            if family == name and set(labels) <= set(values)
        )

    def _round_ended(self, dialect: str, entry: RoundTally) -> None:
        names = self._names(entry)
        if entry.ended is not None:
            error_type = _ERROR_TYPE.get(entry.error, "_OTHER")
            self._client_duration.labels(*names, error_type).observe(entry.ended - entry.began)
        if entry.first_event is not None:
            self._client_first_chunk.labels(*names).observe(entry.first_event - entry.began)
        if entry.usage is not None:
            counts = (entry.usage.input_tokens, entry.usage.output_tokens)
            for direction, count in zip(DIRECTIONS, counts, strict=True):
                self._tokens.labels(dialect, direction).inc(count)
                self._client_tokens.labels(*names, direction).observe(count)
        if entry.cost is not None:
            upstream = self._upstream.known(entry.upstream)
            self._cost.labels(dialect, upstream, names[-1]).inc(entry.cost)

    def _answered(self, tally: TurnTally, ended: float) -> None:
        # Prometheus takes an empty label for an absent one: a turn that ended before its first
        # model call has neither provider nor model.
        names = self._names(tally.rounds[-1]) if tally.rounds else (OPERATION, "", "")
        error_type = _ERROR_TYPE.get(tally.outcome, "_OTHER")
        self._server_duration.labels(*names, error_type).observe(ended - tally.began)
        first = tally.first_generated
        if tally.outcome != "ok" or first is None:
            return
        self._server_first_token.labels(*names).observe(first - tally.began)
        usage = tally.usage
        if usage is not None and usage.output_tokens > 1:
            gap = (ended - first) / (usage.output_tokens - 1)
            self._server_token_gap.labels(*names).observe(gap)

    def _names(self, entry: RoundTally) -> tuple[str, str, str]:
        return OPERATION, self._provider.known(entry.provider), self._model.known(entry.model)


class _ClosedSet:
    """The values that one label may have."""

    def __init__(self, label: str, values: Iterable[str], overflow: Counter) -> None:
        self._values = frozenset(values)
        self._overflow = overflow.labels(label)

    def known(self, value: str) -> str:
        """The value, or `other` (counted) if it is in no closed set."""
        if value in self._values:
            return value
        self._overflow.inc()
        return OTHER


def _version(http_version: str) -> str:
    return http_version if http_version in HTTP_VERSIONS else OTHER


def _upstreams_without_usage(tally: TurnTally) -> set[str]:
    # A call that never answered billed nothing that anybody could miss.
    answered = (entry for entry in tally.rounds if entry.first_event is not None)
    return {entry.upstream for entry in answered if entry.usage is None}
