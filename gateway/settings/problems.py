"""What is wrong with a configuration, said so that it can be put right.

A text never holds a value that may be secret: it names the setting, the place and the rule.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings.model import Settings
from gateway.settings.shape import SECTION, Path, aliases, places, shape_at
from gateway.settings.values import NAME_PATTERN

_SIMPLE: Final[Mapping[str, str]] = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list, e.g. [one, two]",
    "string_type": "must be text; put it in quotes",
    "is_instance_of": "must be text; put it in quotes",
    "mapping_type": "must be a mapping of names to settings",
    "dict_type": "must be a mapping of names to settings",
    "model_type": "must be a mapping of settings",
    "datetime_type": "must be a date or time, e.g. 2027-01-31T00:00:00Z",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_UNITS: Final[Mapping[str, str]] = {"_s": "seconds", "_bytes": "bytes", "_days": "days"}
_NUMBERS: Final = ("int_type", "int_from_float", "float_type")
_TEXTS: Final = ("string_type", "is_instance_of")
_NO_TEXTS: Final[Mapping[type, str]] = {tuple: "a list", dict: "a mapping", type(None): "null"}
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("must be greater than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right. `file` is a path, a variable's name, "command line" or "" (a
    default); `line` counts from 1; `key` is the setting's dotted path, "" for the whole file."""

    file: str
    line: int | None
    key: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        return ": ".join(part for part in (place, self.key, self.text) if part)


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` are all that were found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem whose place is still a path into the settings; it is none if one of `because_of`,
    the other settings that were read to find it, is wrong itself."""

    path: Path
    text: str
    because_of: tuple[Path, ...] = ()


def faults(error: ValidationError, root: type[BaseModel] = Settings) -> list[Fault]:
    """The faults of a failed validation, in the settings' own words."""
    details = error.errors(include_url=False)
    return [_fault(detail, root) for detail in details if not _echo(detail, details)]


def closest(word: str, known: Iterable[str], what: str) -> str:
    """A hint to put after an unknown word: the one that was probably meant, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known {what}: {', '.join(names)}" if names else f"there are no {what}"


def _echo(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """A list is called too short as well when none of its elements is good."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(place)] == place and other is not detail for other in details
    )


def _fault(detail: ErrorDetails, root: type[BaseModel]) -> Fault:
    path = tuple(str(part) for part in detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    if path[-1:] == ("[key]",):
        path = path[:-1]
        if kind == "string_pattern_mismatch":
            return Fault(path, f"is not a name; names match {NAME_PATTERN.strip('^$')}")
    if kind == "extra_forbidden":
        return Fault(path, f"is unknown; {_unknown_hint(path, root)}")
    if kind in _NUMBERS:
        return Fault(path, f"{_SIMPLE[kind]}{_of_unit(path)}")
    if kind in _TEXTS:
        given = _NO_TEXTS.get(type(detail["input"]))
        return Fault(path, f"must be text, not {given}" if given else _SIMPLE[kind])
    if kind in _SIMPLE:
        return Fault(path, _SIMPLE[kind])
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return Fault(path, f"{words} {context[bound]:g}")
    if kind == "literal_error":
        return Fault(path, f"must be one of {context['expected']}")
    return Fault(path, detail["msg"].removeprefix("Value error, "))


def _of_unit(path: Path) -> str:
    """Many write `5s` or `128KB`, and the setting's name has the unit already."""
    return next((f" of {unit}" for end, unit in _UNITS.items() if path[-1].endswith(end)), "")


def _unknown_hint(path: Path, root: type[BaseModel]) -> str:
    parent = shape_at(root, path[:-1])
    if parent is None or parent.kind is not SECTION or parent.model is None:
        return "remove it"
    known = {*parent.model.model_fields, *aliases(parent.model)}
    hint = closest(path[-1], known, "settings here")
    others = [".".join(place) for place in places(root, path[-1])]
    return f"{hint}; elsewhere there is {others[0]}" if others else hint
