"""What a certification shows: how far it is, on standard error, and in the end its verdicts."""

import time
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from gateway.certify.sweep import Tally

_TERMINAL_EVERY_S: Final = 0.2
_LOG_EVERY_S: Final = 5.0
_MOST_FAILURES: Final = 40


class Progress:
    """Counts cases; a terminal sees one line that changes, anything else a line now and then."""

    def __init__(
        self, total: int, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._every_s = _TERMINAL_EVERY_S if self._terminal else _LOG_EVERY_S
        self._began = self._shown = clock()
        self._cases = self._failed = 0

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return self._clock() - self._began

    def add(self, tallies: Sequence[Tally]) -> None:
        """Some more cases are done."""
        self._cases += sum(tally.cases for tally in tallies)
        self._failed += sum(tally.failed for tally in tallies)
        if self._clock() - self._shown >= self._every_s:
            self._shown = self._clock()
            self._show()

    def _show(self) -> None:
        rate = 60 * self._cases / (self.seconds or 1.0)
        line = (
            f"certify: {self._cases:,} of {self._total:,} cases "
            f"({100 * self._cases // self._total} %), {self._failed:,} failed, {rate:,.0f} a minute"
        )
        self._stream.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leaves the terminal's line clean."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def table(tallies: Sequence[Tally], *, by_recording: bool) -> str:
    """The verdicts: a row for each wire, or for each recording on each wire."""
    if by_recording:
        lines = [("recording", "which ends", "wire", "cases", "ok", "verdict")]
        lines += [(t.recording, t.ends or "-", t.wire, *_figures([t])) for t in tallies]
        return _aligned(lines, left=3)
    rows: dict[str, list[Tally]] = {}
    for tally in tallies:
        rows.setdefault(tally.wire, []).append(tally)
    short = [("wire", "recordings", "cases", "ok", "verdict")]
    short += [(wire, f"{len(group):,}", *_figures(group)) for wire, group in rows.items()]
    return _aligned(short, left=1)


def _figures(group: Sequence[Tally]) -> tuple[str, str, str]:
    cases, failed = sum(t.cases for t in group), sum(t.failed for t in group)
    return f"{cases:,}", f"{cases - failed:,}", "good" if not failed else f"{failed:,} FAILED"


def _aligned(lines: Sequence[tuple[str, ...]], *, left: int) -> str:
    """The lines as columns, `left` of them and the last flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left or column == last else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def failures(tallies: Sequence[Tally]) -> list[str]:
    """A line for each fault of a recording: on which wires, where first, and why."""
    wires: dict[tuple[str, str, int, int, int], list[str]] = {}
    for tally in tallies:
        if tally.failed:
            fault = (tally.recording, tally.reason, tally.failed, tally.cases, tally.first_cut)
            wires.setdefault(fault, []).append(tally.wire)
    lines = [
        f"FAILED {recording}: {failed:,} of {cases:,} cuts, first after {first_cut:,} bytes: "
        f"{reason} ({'; '.join(names)})"
        for (recording, reason, failed, cases, first_cut), names in wires.items()
    ]
    more = len(lines) - _MOST_FAILURES
    return [*lines[:_MOST_FAILURES], *([f"and {more:,} more like these"] if more > 0 else [])]


def summary(tallies: Sequence[Tally], seconds: float) -> str:
    """All of it in one line."""
    cases, failed = sum(t.cases for t in tallies), sum(t.failed for t in tallies)
    verdict = "all good" if not failed else f"{failed:,} FAILED"
    rate = 60 * cases / (seconds or 1.0)
    return f"{cases:,} cases in {seconds:.1f} s ({rate:,.0f} a minute): {verdict}"
