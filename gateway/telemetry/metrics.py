"""The Prometheus metrics of one process, in a registry of their own.

`catalogue.py` says which families there are. Every child whose labels are known at start is made
at start, so a scrape shows 0 before the first event and `rate()` sees it. A value out of no closed
set becomes `other`: the number of series is fixed by the configuration, whatever clients send.

Text formats: Prometheus 0.0.4 and OpenMetrics 1.0, whichever `Accept` asks for. A page is rendered
in a thread of its own, one at a time, and served again for a second.
"""

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import product
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

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
    Family,
)
from gateway.turn.tally import OUTCOMES, Outcome, RoundTally, TurnTally

_FRESH_S: Final = 1.0
_PAGES: Final = 4

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

M = TypeVar("M", bound=MetricWrapperBase)


class ModelLabels(NamedTuple):
    """A configured upstream, as the metrics name it."""

    upstream: str
    provider: str
    model: str


class Page(NamedTuple):
    """A rendered scrape."""

    content_type: str
    body: bytes
    rendered_at: float


def running_versions() -> dict[str, str]:
    """The versions of what runs here: gateway, Python and Hypercorn."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "hypercorn": version("hypercorn"),
    }


class Metrics:
    """What is counted, and how a scrape reads it.

    `dialects` and `models` are the closed sets of the configuration; `dropped_lines` gives the
    number of log lines that were lost so far. All methods are cheap and never raise for a value;
    they may be called from any thread.
    """

    def __init__(
        self,
        dialects: Sequence[str],
        models: Iterable[ModelLabels],
        *,
        dropped_lines: Callable[[], int] = logs.dropped_lines,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        self.registry = CollectorRegistry(auto_describe=False)
        self._make_families()
        self._make_closed_sets(dialects, tuple(models))
        self.registry.register(_Dropped(dropped_lines))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._renderer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._rendering = asyncio.Lock()
        self._pages: dict[str, Page] = {}

    def _make_families(self) -> None:
        counter, gauge = partial(self._make, Counter), partial(self._make, Gauge)
        self._turns = counter(catalogue.TURNS)
        self._refused = counter(catalogue.REFUSED)
        self._limited = counter(catalogue.LIMITED)
        self._unchecked = counter(catalogue.UNCHECKED)
        self._in_flight = gauge(catalogue.IN_FLIGHT)
        self._tokens = counter(catalogue.TOKENS)
        self._without_usage = counter(catalogue.WITHOUT_USAGE)
        self._draining = gauge(catalogue.DRAINING)
        self._build_info = gauge(catalogue.BUILD_INFO)
        self._overflow = counter(catalogue.LABEL_OVERFLOW)
        self._turn_duration = self._histogram(catalogue.TURN_DURATION)
        self._first_token = self._histogram(catalogue.FIRST_TOKEN)
        self._client_tokens = self._histogram(catalogue.CLIENT_TOKENS)
        self._client_duration = self._histogram(catalogue.CLIENT_DURATION)
        self._client_first_chunk = self._histogram(catalogue.CLIENT_FIRST_CHUNK)
        self._server_duration = self._histogram(catalogue.SERVER_DURATION)
        self._server_first_token = self._histogram(catalogue.SERVER_FIRST_TOKEN)
        self._server_token_gap = self._histogram(catalogue.SERVER_TOKEN_GAP)

    def _make(self, kind: type[M], family: Family) -> M:
        return kind(family.name, family.help, family.labels, registry=self.registry)

    def _histogram(self, family: Family) -> Histogram:
        return Histogram(
            family.name, family.help, family.labels, registry=self.registry, buckets=family.buckets
        )

    def _make_closed_sets(self, dialects: Sequence[str], models: tuple[ModelLabels, ...]) -> None:
        """Makes every child that the configuration allows."""
        _create(self._overflow, (catalogue.OVERFLOW_LABELS,))
        self._dialect = _ClosedSet("dialect", dialects, self._overflow)
        self._kind = _ClosedSet("kind", ERROR_KINDS, self._overflow)
        self._outcome = _ClosedSet("outcome", OUTCOMES, self._overflow)
        self._upstream = _ClosedSet("upstream", (m.upstream for m in models), self._overflow)
        self._provider = _ClosedSet("provider", (m.provider for m in models), self._overflow)
        self._model = _ClosedSet("model", (m.model for m in models), self._overflow)

        _create(self._turns, (dialects, OUTCOMES, HTTP_VERSIONS))
        _create(self._refused, ((*dialects, OTHER), ERROR_KINDS))
        _create(self._limited, (LIMIT_NAMES,))
        for metric in (self._in_flight, self._turn_duration, self._first_token):
            _create(metric, (dialects,))
        _create(self._tokens, (dialects, DIRECTIONS))
        _create(self._without_usage, ([m.upstream for m in models],))
        self._build_info.labels(**running_versions()).set(1)

        for provider, model in sorted({(m.provider, m.model) for m in models}):
            names = ((OPERATION,), (provider,), (model,))
            _create(self._client_tokens, (*names, DIRECTIONS))
            _create(self._client_duration, (*names, ERROR_TYPES))
            _create(self._client_first_chunk, names)
            _create(self._server_duration, (*names, ERROR_TYPES))
            _create(self._server_first_token, names)
            _create(self._server_token_gap, names)

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

    def turn_began(self, dialect: str) -> None:
        """A chat request was admitted; `turn_ended` must follow, whatever happens."""
        self._in_flight.labels(self._dialect.known(dialect)).inc()

    def turn_ended(self, tally: TurnTally) -> None:
        """An admitted chat request is over; once per `turn_began`, with everything about it."""
        dialect = self._dialect.known(tally.dialect)
        http_version = tally.http_version if tally.http_version in HTTP_VERSIONS else OTHER
        self._in_flight.labels(dialect).dec()
        self._turns.labels(dialect, self._outcome.known(tally.outcome), http_version).inc()
        if tally.first_delivered is not None:
            self._first_token.labels(dialect).observe(tally.first_delivered - tally.began)
        for entry in tally.rounds:
            self._round_ended(dialect, entry)
        for upstream in _upstreams_without_usage(tally):
            self._without_usage.labels(self._upstream.known(upstream)).inc()
        if tally.ended is not None:
            self._turn_duration.labels(dialect).observe(tally.ended - tally.began)
            self._answered(tally, tally.ended)

    def draining(self, *, on: bool) -> None:
        """Whether the gateway is stopping."""
        self._draining.set(on)

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

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of all metrics now, in the format that `accept` prefers."""
        page = self._render(accept)
        return page.content_type, page.body

    async def scrape(self, accept: str) -> tuple[str, bytes]:
        """As `render`, off the event loop and at most a second old."""
        content_type = _encoder(accept)[1]
        async with self._rendering:
            page = self._pages.get(content_type)
            if page is None or monotonic() - page.rendered_at > _FRESH_S:
                loop = asyncio.get_running_loop()
                page = await loop.run_in_executor(self._renderer, self._render, accept)
                self._keep(page)
        return page.content_type, page.body

    def close(self) -> None:
        """Lets go of the rendering thread."""
        self._renderer.shutdown(wait=False)

    def _render(self, accept: str) -> Page:
        encode, content_type = _encoder(accept)
        began = monotonic()
        return Page(content_type, encode(self.registry), began)

    def _keep(self, page: Page) -> None:
        self._pages.pop(page.content_type, None)
        self._pages[page.content_type] = page
        # The format's version in a content type is the client's word.
        while len(self._pages) > _PAGES:
            del self._pages[next(iter(self._pages))]


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


class _Dropped(Collector):
    """The count of lost log lines, read when scraped: the log knows no metrics."""

    def __init__(self, dropped_lines: Callable[[], int]) -> None:
        self._dropped_lines = dropped_lines

    def collect(self) -> Iterator[Metric]:
        family = catalogue.LOG_LINES_DROPPED
        yield CounterMetricFamily(family.name, family.help, value=self._dropped_lines())


def _upstreams_without_usage(tally: TurnTally) -> set[str]:
    # A call that never answered billed nothing that anybody could miss.
    answered = (entry for entry in tally.rounds if entry.first_event is not None)
    return {entry.upstream for entry in answered if entry.usage is None}


def _create(metric: MetricWrapperBase, values: Iterable[Iterable[str]]) -> None:
    for combination in product(*values):
        metric.labels(*combination)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version in `Accept` that is no number
        return choose_encoder("")
