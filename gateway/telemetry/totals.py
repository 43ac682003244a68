"""The numbers of all workers as one: of those that run, and of those that have ended.

A turn that began on a worker and did not end before the worker did is settled here as
`worker_lost`; the turns in flight are those that began and have not ended, so both are exact
whenever a worker is killed. No counter ever falls.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.telemetry import catalogue
from gateway.telemetry.catalogue import BY_NAME, CATALOGUE, Family
from gateway.telemetry.scoreboard import Key, Scoreboard, ScoreboardError

LOST: Final = "worker_lost"
"""The outcome of a turn whose worker died before it."""

Numbers = dict[Key, list[float]]
"""Values by series: one, or of a histogram its buckets (not cumulative) and the sum."""


class Totals(Collector):
    """Reads the scoreboards that it was given, and remembers those that were taken away.

    `add` and `end` belong to one thread, reading to any.
    """

    def __init__(self, unreadable: Callable[[], None] = lambda: None) -> None:
        self._live: dict[Scoreboard, Numbers] = {}  # as they were last read
        self._ended: Numbers = {}
        self._unreadable = unreadable
        self._lock = threading.Lock()

    def add(self, board: Scoreboard) -> None:
        """Counts a new writer in."""
        with self._lock:
            self._live[board] = {}

    def end(self, board: Scoreboard) -> int:
        """Keeps the counters of a writer that is no more; how many turns were lost with it."""
        with self._lock:
            numbers = self._read(board)
            del self._live[board]
            lost = _settle(numbers)
            for key, values in numbers.items():
                if BY_NAME[key[0]].type != "gauge":
                    _add(self._ended, key, values)
        return lost

    def numbers(self) -> Numbers:
        """Every series now."""
        merged: Numbers = {}
        with self._lock:
            merged.update(self._ended)
            for board in self._live:
                for key, values in self._read(board).items():
                    _add(merged, key, values)
        _count_in_flight(merged)
        return merged

    def collect(self) -> Iterator[Metric]:
        """Every family that has a series, in the catalogue's order."""
        grouped: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
        for (name, labels), values in self.numbers().items():
            grouped.setdefault(name, []).append((labels, values))
        for family in CATALOGUE:
            if family.name in grouped:
                yield shown(family, grouped[family.name])

    def _read(self, board: Scoreboard) -> Numbers:
        try:
            series, cells = board.series(), board.copy()
        except ScoreboardError:
            self._unreadable()
            return self._live[board]
        found: Numbers = {}
        for first, key in series:
            family = BY_NAME.get(key[0])
            # A worker of another release may count what this supervisor does not know.
            if family is None or len(key[1]) != len(family.labels):
                continue
            values = cells[first : first + family.cells]
            if len(values) == family.cells:
                found[key] = values
        self._live[board] = found
        return found


def shown(family: Family, rows: Sequence[tuple[tuple[str, ...], Sequence[float]]]) -> Metric:
    """The family with these children as prometheus_client exports it."""
    if family.type == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        bounds = [*map(floatToGoString, family.buckets), "+Inf"]
        for labels, values in rows:
            histogram.add_metric(labels, _cumulative(bounds, values), values[-1])
        return histogram
    kind = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, (value,) in rows:
        metric.add_metric(labels, value)
    return metric


def _cumulative(bounds: Sequence[str], values: Sequence[float]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    total = 0.0
    for bound, value in zip(bounds, values, strict=False):  # the sum is behind the buckets
        total += value
        found.append((bound, total))
    return found


def _add(numbers: Numbers, key: Key, values: Sequence[float]) -> None:
    there = numbers.get(key)
    if there is None:
        numbers[key] = [*values]
    elif BY_NAME[key[0]].merge == "max":
        numbers[key] = list(map(max, there, values))
    else:
        numbers[key] = [one + other for one, other in zip(there, values, strict=True)]


def _open(numbers: Numbers) -> dict[tuple[str, str], float]:
    """Turns that began and have not ended, by dialect and HTTP version."""
    found: dict[tuple[str, str], float] = {}
    for (name, labels), (value, *_) in numbers.items():
        if name == catalogue.ADMITTED.name:
            dialect, http_version = labels
            found[dialect, http_version] = found.get((dialect, http_version), 0) + value
        elif name == catalogue.TURNS.name:
            dialect, _, http_version = labels
            found[dialect, http_version] = found.get((dialect, http_version), 0) - value
    return found


def _settle(numbers: Numbers) -> int:
    """Ends the open turns as lost; how many there were."""
    lost = 0
    for (dialect, http_version), count in _open(numbers).items():
        if count > 0:
            key = (catalogue.TURNS.name, (dialect, LOST, http_version))
            _add(numbers, key, [count])
            lost += round(count)
    return lost


def _count_in_flight(numbers: Numbers) -> None:
    for (dialect, _), count in _open(numbers).items():
        # A turn may have ended between the reading of its two cells.
        _add(numbers, (catalogue.IN_FLIGHT.name, (dialect,)), [max(count, 0)])
