"""From a file, variables and flags to `Settings`, or to everything that is wrong with them.

Later wins: built-in defaults, the file, the variables `GATEWAY_A__B__C`, the flags. Sections
merge key by key, lists replace. A file without `upstreams` has the embedded model as `local`,
one without `agents` has an agent `default` on it. Relative paths start at the working directory.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from gateway.settings import checks
from gateway.settings.document import read_document
from gateway.settings.later import unavailable
from gateway.settings.layers import (
    Layer,
    Origin,
    environment_layer,
    flags_layer,
    merged,
    normalise,
    origin_of,
)
from gateway.settings.model import Settings
from gateway.settings.problems import ConfigError, Fault, Problem, faults
from gateway.settings.shape import Path

_BUILT_IN: Final[Mapping[str, Mapping[str, object]]] = {
    "upstreams": {"local": {"protocol": "embedded"}},
    "agents": {"default": {}},
}
_PRUNE_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Good settings, and what about them is allowed but probably not meant."""

    settings: Settings
    warnings: tuple[str, ...] = ()


def load_settings(
    path: FilePath | None, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> LoadResult:
    """Reads the file (None: built-in defaults), `environ` and `overrides` (dotted path: value).

    Raises `ConfigError` with every problem found.
    """
    layers = [_file_layer(path), environment_layer(environ), flags_layer(overrides)]
    values: dict[str, object] = {}
    origins: dict[Path, Origin] = {}
    for number, layer in enumerate(layers):
        normalise(layer)
        values = merged(values, layer.values)
        origins.update(layer.origins)
        if number == 0:
            values.update(
                {key: dict(built) for key, built in _BUILT_IN.items() if not values.get(key)}
            )
    settings, found = _validated(values)
    problems = [problem for layer in layers for problem in layer.problems]
    problems += _placed(_without_repeats(found, problems), origins)
    if settings is None or problems:
        raise ConfigError(sorted(problems, key=_in_reading_order(path)))
    warnings = [text for layer in layers for text in layer.warnings]
    return LoadResult(settings, (*warnings, *checks.warnings(settings)))


def masked(settings: Settings) -> dict[str, object]:
    """The settings as plain values for showing: every secret is a row of asterisks."""
    shown: dict[str, object] = settings.model_dump(mode="json")
    shown["store"] = {**settings.store.model_dump(mode="json"), "url": shown_store_url(settings)}
    return shown


def shown_store_url(settings: Settings) -> str:
    """The store's address, a password in it masked."""
    password = urlsplit(settings.store.url).password
    url = settings.store.url
    return url.replace(f":{password}@", ":**********@") if password else url


def credential_count(settings: Settings) -> int:
    """How many keys and session secrets all tenants have; with none nobody can be let in."""
    return sum(
        len(tenant.keys) + len(tenant.dialects.helper.session_secrets)
        for tenant in settings.tenants.values()
    )


def used_upstreams(settings: Settings) -> set[str]:
    """The names of the upstreams that some agent asks."""
    return {name for agent in settings.agents.values() for name in agent.upstreams}


def uses_embedded(settings: Settings) -> bool:
    """Whether any agent asks the embedded model."""
    return any(settings.upstreams[n].protocol == "embedded" for n in used_upstreams(settings))


def _file_layer(path: FilePath | None) -> Layer:
    if path is None:
        return Layer()
    document = read_document(path)
    origins = {key: Origin(str(path), line) for key, line in document.lines.items()}
    return Layer(document.values, {(): Origin(str(path)), **origins}, document.problems)


def _validated(values: Mapping[str, object]) -> tuple[Settings | None, list[Fault]]:
    """The settings if they are good, and every fault.

    A faulty entry is taken out and the rest tried again, so that one typing error does not hide
    what is wrong between the other settings.
    """
    found = unavailable(values)
    known = checks.Known.from_values(values)
    rest: object = values
    shape_faults: list[Fault] = []
    for _ in range(_PRUNE_ROUNDS):
        try:
            settings = Settings.model_validate(rest)
        except ValidationError as error:
            new = faults(error)
            if rest is values:
                shape_faults = new
            for fault in new:
                rest = _without(rest, fault.path)
            continue
        touched = [fault.path for fault in shape_faults]
        between = [
            fault
            for fault in checks.check(settings, known)
            if not any(_touches(path, touched) for path in (fault.path, *fault.because_of))
        ]
        found += shape_faults + between
        return (None if found else settings), found
    return None, found + shape_faults


def _without(values: object, path: Path) -> object:
    """A copy without the entry at `path`; if there is none, without what should hold it."""
    if not isinstance(values, Mapping) or not path:
        return {}
    inner = values.get(path[0])
    if len(path) > 1 and isinstance(inner, Mapping) and (len(path) > 2 or path[1] in inner):
        return {**values, path[0]: _without(inner, path[1:])}
    return {key: value for key, value in values.items() if key != path[0]}


def _touches(path: Path, others: Iterable[Path]) -> bool:
    return any(path[: len(other)] == other or other[: len(path)] == path for other in others)


def _without_repeats(found: Iterable[Fault], problems: Sequence[Problem]) -> list[Fault]:
    """The faults that are not the echo of a problem already found at the same key."""
    said = {problem.key for problem in problems}
    fresh: list[Fault] = []
    for fault in found:
        key = ".".join(fault.path)
        if key not in said:
            fresh.append(fault)
        said.add(key)
    return fresh


def _placed(found: Iterable[Fault], origins: Mapping[Path, Origin]) -> list[Problem]:
    places = ((fault, origin_of(origins, fault.path)) for fault in found)
    return [Problem(at.file, at.line, ".".join(fault.path), fault.text) for fault, at in places]


def _in_reading_order(path: FilePath | None) -> Callable[[Problem], tuple[bool, str, int]]:
    return lambda problem: (problem.file != str(path), problem.file, problem.line or 0)
