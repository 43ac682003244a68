"""A changed configuration: noticing it, reading it, and saying what changed.

Files are looked at once a second, by what the system says of them: time, size, and which file the
name leads to, so that a link that is pointed elsewhere counts as well. A change is taken once it
has stood still for a second, because files may be written in steps.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.settings import LoadResult, Settings, load_settings

POLL_S: Final = 1.0

Stamp = tuple[tuple[int, int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the configuration comes from: a file (None: built-in defaults), and the flags."""

    file: Path | None
    overrides: Mapping[str, object]

    def load(self) -> LoadResult:
        """The settings as they are now. Raises `ConfigError`."""
        return load_settings(self.file, os.environ, self.overrides)


class Watch:
    """Whether files have changed; `changed` is to be asked every `POLL_S`."""

    def __init__(self, *files: Path | None) -> None:
        self._files = [file for file in files if file is not None]
        self._taken = self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether they are not what they were, and are not being changed right now."""
        before, self._seen = self._seen, self._stamp()
        if self._seen == self._taken or self._seen != before:
            return False
        self._taken = self._seen
        return True

    def _stamp(self) -> Stamp:
        return tuple(_stamp(file) for file in self._files)


def changes(old: Settings, new: Settings) -> list[str]:
    """The paths of the settings that differ; their values may be secret."""
    return list(_differing(old.model_dump(), new.model_dump(), ()))


def _differing(old: object, new: object, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key in old and key in new:
                yield from _differing(old[key], new[key], (*path, str(key)))
            else:
                yield ".".join((*path, str(key)))
    elif old != new:
        yield ".".join(path)


def _stamp(file: Path) -> tuple[int, int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
