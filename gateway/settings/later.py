"""Settings of later releases: they parse, and anything but their neutral value is refused.

A setting that is accepted and does nothing would be a lie. A feature that arrives deletes its
line here, and nothing else.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.settings.problems import Fault
from gateway.settings.shape import Path

_NONE: Final[tuple[object, ...]] = (None, (), {})

# A path, with * for any name or list index, and the values that ask for nothing.
_LATER: Final[tuple[tuple[str, tuple[object, ...]], ...]] = (
    ("server.playground", (False,)),
    ("agents.*.tools", _NONE),
    ("agents.*.tool_rounds", (8,)),
    ("agents.*.guards", _NONE),
    ("tools", _NONE),
    ("guards", _NONE),
)


def unavailable(values: Mapping[str, object]) -> list[Fault]:
    """A fault for every setting in `values` that asks for what this release does not have."""
    return [
        Fault(path, "is not available in this release; remove it")
        for pattern, neutral in _LATER
        for path, value in _at(values, tuple(pattern.split(".")), ())
        if value not in neutral
    ]


def _at(value: object, pattern: Path, path: Path) -> Iterator[tuple[Path, object]]:
    if not pattern:
        yield path, value
    elif isinstance(value, Mapping):
        names = list(value) if pattern[0] == "*" else [pattern[0]]
        for name in names:
            if name in value:
                yield from _at(value[name], pattern[1:], (*path, str(name)))
