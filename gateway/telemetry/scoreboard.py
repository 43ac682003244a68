"""Numbers that one process writes and another reads, in memory that both have mapped.

A worker counts on its scoreboard; the supervisor reads it, also when the worker has been killed.
Every number is a cell of 64 bits that is written by one store, so a reader, or a kill at any
moment, finds it before or after a change and never within one.

Layout: a header (cells in use; bytes of the directory that are valid; the writer's last sign of
life on the monotonic clock, in seconds), the cells, and a directory with one line of JSON per
series: `[first cell, family, [label values]]`. The memory has no name in any file system, so
nothing is left behind, and its size cannot be changed.
"""

import fcntl
import json
import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Final

_HEADER: Final = 64
_CELLS: Final = 131_072
_DIRECTORY_AT: Final = _HEADER + 8 * _CELLS
# Pages that nobody touches cost nothing.
SIZE: Final = _DIRECTORY_AT + 8 * 1024 * 1024

Key = tuple[str, tuple[str, ...]]
"""A series: the family's name and its label values."""


class ScoreboardError(Exception):
    """What is on a scoreboard cannot be understood."""


def shared_file() -> int:
    """The descriptor of a new scoreboard's memory, for `Scoreboard` here and in a child."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            os.ftruncate(file.fileno(), SIZE)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("gateway-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE)
    # Whoever reads memory behind the end of a file that was cut is killed.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return descriptor


class Scoreboard:
    """One scoreboard, mapped from a descriptor of `shared_file`, or of this process alone.

    Only one process may write. The descriptor can be closed afterwards.
    """

    def __init__(self, descriptor: int = -1) -> None:
        view = memoryview(mmap.mmap(descriptor, SIZE))
        self.cells: Final = view[_HEADER:_DIRECTORY_AT].cast("d")
        self._used: Final = view[:8].cast("Q")
        self._valid: Final = view[8:16].cast("Q")
        self._beat: Final = view[16:24].cast("d")
        self._directory: Final = view[_DIRECTORY_AT:]
        self._known: list[tuple[int, Key]] = []
        self._read_to = 0

    @property
    def beat(self) -> float:
        """The writer's last sign of life, 0 before its first."""
        return self._beat[0]

    @beat.setter
    def beat(self, now: float) -> None:
        self._beat[0] = now

    def add(self, family: str, labels: Sequence[str], cells: int) -> int | None:
        """The first of so many cells for a new series, all 0; None if there is no room."""
        first = self._used[0]
        line = json.dumps([first, family, list(labels)]).encode() + b"\n"
        at = self._valid[0]
        end = at + len(line)
        if first + cells > _CELLS or end > len(self._directory):
            return None
        self._directory[at:end] = line
        self._used[0] = first + cells
        self._valid[0] = end
        return first

    def series(self) -> list[tuple[int, Key]]:
        """The first cell of every series, with what it is. Raises `ScoreboardError`."""
        end = self._valid[0]
        if end > self._read_to:
            if end > len(self._directory):
                raise ScoreboardError("the directory is longer than its place")
            lines = bytes(self._directory[self._read_to : end]).splitlines()
            self._known += [_entry(line) for line in lines]
            self._read_to = end
        return self._known

    def copy(self) -> list[float]:
        """The cells in use, as they are now."""
        return list(self.cells[: min(self._used[0], _CELLS)])


def _entry(line: bytes) -> tuple[int, Key]:
    try:
        first, family, labels = json.loads(line)
        key = (str(family), tuple(str(label) for label in labels))
        if isinstance(first, int) and 0 <= first < _CELLS:
            return first, key
    except (ValueError, TypeError):
        pass
    raise ScoreboardError("a line of the directory is no series")
