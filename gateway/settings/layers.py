"""The three places that settings come from, brought into one form and merged.

A layer is a file, the variables `GATEWAY_A__B__C`, or the command line's flags. In every layer a
secret may be given as `<name>_file`, and `session_secret` for a list of one; both are replaced by
what they stand for before the layers are merged, so that a later layer wins over an earlier one
however either spelled it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

from pydantic import BaseModel

from gateway.settings.model import Settings
from gateway.settings.problems import Problem
from gateway.settings.shape import SINGULARS, Kind, Path, Shape, aliases, fields, shape_at, shape_of

_PREFIX: Final = "GATEWAY_"
_SECRET_FILE_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was given, as a problem names it."""

    file: str
    line: int | None = None


@dataclass(slots=True)
class Layer:
    """One place's values as nested mappings, and where each was given."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[Path, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, path: Path, text: str) -> None:
        """Adds a problem at the place where the path, or what encloses it, was given."""
        at = origin_of(self.origins, path)
        self.problems.append(Problem(at.file, at.line, ".".join(path), text))


def origin_of(origins: Mapping[Path, Origin], path: Path) -> Origin:
    """Where the path was given, else the first thing in it, else the same of what is around it."""
    for end in range(len(path), -1, -1):
        here = path[:end]
        inside = (at for key, at in origins.items() if key[:end] == here)
        at = origins.get(here) or next(inside, None)
        if at is not None:
            return at
    return Origin("")


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The variables `GATEWAY_A__B__C`; those without `__` only warn."""
    layer = Layer()
    ours = sorted((name for name in environ if name.startswith(_PREFIX)), key=lambda n: (len(n), n))
    strangers = [name for name in ours if "__" not in name]
    if strangers:
        layer.warnings.append(
            f"ignored, because a setting's variable has two underscores between its parts "
            f"(GATEWAY_SERVER__BIND): {', '.join(strangers)}"
        )
    for name in ours:
        if name not in strangers:
            path = tuple(part.lower() for part in name.removeprefix(_PREFIX).split("__"))
            layer.origins[path] = Origin(name)
            if not all(path):
                layer.problem(path, "has an empty part; write GATEWAY_SECTION__SETTING")
                continue
            _put(layer.values, path, _from_text(layer, path, environ[name]))
    return layer


def flags_layer(overrides: Mapping[str, object]) -> Layer:
    """Flags of the command line: dotted paths to values; lists may be lists or tuples."""
    layer = Layer()
    for key, value in overrides.items():
        path = tuple(key.split("."))
        layer.origins[path] = Origin("command line")
        _put(layer.values, path, tuple(value) if isinstance(value, list) else value)
    return layer


def _from_text(layer: Layer, path: Path, text: str) -> object:
    shape = shape_at(Settings, path)
    if shape is None or shape.kind in (Kind.TEXT, Kind.SECRET):
        return None if shape is not None and shape.optional and not text else text
    try:
        return _tuples(json.loads(text))
    except (ValueError, RecursionError):
        if shape.kind in (Kind.SECTION, Kind.NAMED, Kind.LISTING):
            listing = shape.kind is Kind.LISTING
            example = '["one", "two"]' if listing else '{"name": "value"}'
            layer.problem(path, f"must be JSON, e.g. {example}")
            return () if listing else {}
        return text


def _tuples(value: object) -> object:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return value


def _put(values: dict[str, object], path: Path, value: object) -> None:
    for part in path[:-1]:
        inner = values.get(part)
        if not isinstance(inner, dict):
            inner = values[part] = {}
        values = inner
    old = values.get(path[-1])
    if isinstance(old, dict) and isinstance(value, dict):
        value = merged(old, value)
    values[path[-1]] = value


def merged(lower: Mapping[str, object], upper: Mapping[str, object]) -> dict[str, object]:
    """Both, mapping by mapping; where they differ `upper` wins, and lists replace."""
    result = dict(lower)
    for name, value in upper.items():
        old = result.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            value = merged(old, value)
        result[name] = value
    return result


def normalise(layer: Layer) -> None:
    """Brings the layer's values into the form of the models.

    An empty section (`tenants:` with nothing below) is an empty mapping; secrets are read from
    their files. What has no shape is left for the validation to refuse.
    """
    layer.values = _section(layer, layer.values, Settings, ())


def _section(
    layer: Layer, values: Mapping[str, object], model: type[BaseModel], path: Path
) -> dict[str, object]:
    shapes = fields(model)
    result: dict[str, object] = {}
    for name, value in _spelled_out(layer, values, model, path).items():
        shape = shapes.get(name)
        result[name] = value if shape is None else _shaped(layer, value, shape, (*path, name))
    return result


def _shaped(layer: Layer, value: object, shape: Shape, path: Path) -> object:
    if shape.kind in (Kind.SECTION, Kind.NAMED) and value is None and not shape.optional:
        return {}
    if shape.kind is Kind.SECTION and shape.model is not None and isinstance(value, dict):
        return _section(layer, value, shape.model, path)
    if shape.kind is Kind.NAMED and isinstance(value, dict):
        inner = shape_of(shape.inner)
        return {
            name: _shaped(layer, item, inner, (*path, str(name))) for name, item in value.items()
        }
    return value


def _spelled_out(
    layer: Layer, values: Mapping[str, object], model: type[BaseModel], path: Path
) -> dict[str, object]:
    """The section with `<name>_file` and singulars replaced by what they stand for."""
    result = dict(values)
    given = {name: name for name in model.model_fields if values.get(name) is not None}
    for alias, target in aliases(model).items():
        value = result.pop(alias, None)
        if value in (None, ""):
            continue
        if target in given:
            layer.problem((*path, alias), f"is one too many: {given[target]} is given as well")
            continue
        given[target] = alias
        at = layer.origins.get((*path, alias))
        if at is not None:
            layer.origins[(*path, target)] = at
        many = fields(model)[target].kind is Kind.LISTING
        if alias in SINGULARS:
            result[target] = (value,)
            continue
        lines = _secret_lines(
            layer, (*path, alias), value, one=not alias.startswith(target) or not many
        )
        if lines is not None:
            result[target] = lines if many else lines[0]
    return result


def _secret_lines(layer: Layer, path: Path, value: object, *, one: bool) -> tuple[str, ...] | None:
    if not isinstance(value, str) or not value:
        layer.problem(path, "must be the path of a file")
        return None
    file = FilePath(value)
    try:
        with file.open("rb") as opened:
            raw = opened.read(_SECRET_FILE_BYTES + 1)
        mode = file.stat().st_mode
        text = raw.decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        layer.problem(path, f"the file {value!r} cannot be read: {reason}")
        return None
    if len(raw) > _SECRET_FILE_BYTES:
        layer.problem(path, f"the file {value!r} is larger than {_SECRET_FILE_BYTES} bytes")
        return None
    if mode & 0o004:
        layer.warnings.append(
            f"{'.'.join(path)}: every user of this machine can read {value!r}; chmod o-r {value}"
        )
    lines = (text.rstrip("\r\n"),) if one else _not_blank(text.splitlines())
    if not any(lines):
        layer.problem(path, f"the file {value!r} is empty")
        return None
    return lines


def _not_blank(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if line.strip())
