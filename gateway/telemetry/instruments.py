"""Counters, gauges and histograms whose values are cells of a scoreboard.

Used like those of prometheus_client: `family.labels(value, …).inc()`. A child is made when it is
first asked for and keeps its cells. May be used from any thread.
"""

import threading
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Iterable, MutableSequence
from itertools import product
from typing import Final, Generic, TypeVar

from gateway.telemetry.catalogue import Family
from gateway.telemetry.scoreboard import Scoreboard

_lock: Final = threading.Lock()


class Number:
    """One value of a counter or gauge."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: "MutableSequence[float] | memoryview[float]", at: int) -> None:
        self._cells = cells
        self._at = at

    def inc(self, amount: float = 1.0) -> None:
        """Adds."""
        with _lock:
            self._cells[self._at] += amount

    def dec(self, amount: float = 1.0) -> None:
        """Takes off; for gauges."""
        self.inc(-amount)

    def set(self, value: float) -> None:
        """Sets; for gauges, and for counters that are kept elsewhere."""
        self._cells[self._at] = value


class Distribution:
    """One histogram: a cell per bucket, the last for what is over every bound, and the sum."""

    __slots__ = ("_at", "_bounds", "_cells", "_sum")

    def __init__(
        self,
        cells: "MutableSequence[float] | memoryview[float]",
        at: int,
        bounds: tuple[float, ...],
    ) -> None:
        self._cells = cells
        self._at = at
        self._bounds = bounds
        self._sum = at + len(bounds) + 1

    def observe(self, value: float) -> None:
        """Counts one observation."""
        at = self._at + bisect_left(self._bounds, value)
        with _lock:
            self._cells[at] += 1
            self._cells[self._sum] += value


C = TypeVar("C", Number, Distribution)


class _Instrument(ABC, Generic[C]):
    """A family and its children by label values."""

    def __init__(self, family: Family, board: Scoreboard) -> None:
        self._family = family
        self._board = board
        self._children: dict[tuple[str, ...], C] = {}
        if not family.labels:
            self.labels()

    def labels(self, *values: str) -> C:
        """The child with these label values, made if there is none."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._child(values)
        return child

    def create(self, *values: Iterable[str]) -> None:
        """Makes every child that combines these values, so that it is exported as 0."""
        for combination in product(*values):
            self.labels(*combination)

    def _child(self, values: tuple[str, ...]) -> C:
        family = self._family
        if len(values) != len(family.labels):
            raise ValueError(f"{family.name} has the labels {family.labels}, not {values}")
        at = self._board.add(family.name, values, family.cells)
        if at is None:
            # Nobody sees these; whoever counts must not fail for want of a place.
            return self._made(array("d", bytes(8 * family.cells)), 0)
        return self._made(self._board.cells, at)

    @abstractmethod
    def _made(self, cells: "MutableSequence[float] | memoryview[float]", at: int) -> C:
        """A child whose numbers begin at `at`."""


class Counter(_Instrument[Number]):
    """A family of numbers that only grow."""

    def inc(self, amount: float = 1.0) -> None:
        """Adds to the only child of a family without labels."""
        self.labels().inc(amount)

    def _made(self, cells: "MutableSequence[float] | memoryview[float]", at: int) -> Number:
        return Number(cells, at)


class Gauge(Counter):
    """A family of numbers that come and go."""

    def dec(self, amount: float = 1.0) -> None:
        """Takes off the only child of a family without labels."""
        self.labels().dec(amount)

    def set(self, value: float) -> None:
        """Sets the only child of a family without labels."""
        self.labels().set(value)


class Histogram(_Instrument[Distribution]):
    """A family of distributions over the family's buckets."""

    def observe(self, value: float) -> None:
        """Counts an observation of a family without labels."""
        self.labels().observe(value)

    def _made(self, cells: "MutableSequence[float] | memoryview[float]", at: int) -> Distribution:
        return Distribution(cells, at, self._family.buckets)
