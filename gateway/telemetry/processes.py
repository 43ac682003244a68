"""`process_*` of several processes as one, and what each of them holds.

The numbers are those of prometheus_client's own collector (from /proc; elsewhere there are none).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SUMMED: Final = (
    "process_cpu_seconds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
)
_CPU: Final = "process_cpu_seconds"
_DECIMALS: Final = 6


class Processes(Collector):
    """This process and the children that `children` gives.

    What ended children used of the processor is counted on: it never falls.
    """

    def __init__(self, children: Callable[[], Sequence[int]]) -> None:
        self._children = children

    def collect(self) -> Iterator[Metric]:
        """The families of this process, with the children's shares."""
        sums = self._sums()
        for metric in _of("self"):
            value = metric.samples[0].value
            if metric.name in _SUMMED:
                # Another order changes the last bits, and a counter may not fall by one of them.
                value = round(value + sums.get(metric.name, 0), _DECIMALS)
            kind = CounterMetricFamily if metric.name == _CPU else GaugeMetricFamily
            yield kind(metric.name, metric.documentation, value=value)

    def _sums(self) -> dict[str, float]:
        """The children's shares, those that have ended included."""
        while True:
            ended = _ended_s()
            sums = {_CPU: ended}
            for child in self._children():
                for metric in _of(child):
                    sums[metric.name] = sums.get(metric.name, 0) + metric.samples[0].value
            if _ended_s() == ended:
                return sums  # else one has ended meanwhile, which was counted twice or not at all


def _ended_s() -> float:
    """What children that were waited for used of the processor, in seconds."""
    times = os.times()
    return times.children_user + times.children_system


def resident_bytes(process: int) -> float | None:
    """The memory that a process holds; None where it cannot be seen."""
    found = [m for m in _of(process) if m.name == "process_resident_memory_bytes"]
    return found[0].samples[0].value if found else None


def _of(process: int | str) -> Iterator[Metric]:
    yield from ProcessCollector(pid=lambda: process, registry=None).collect()
