"""What kind of value belongs at a path of the settings, read off the models.

The layers (file, variables, flags) are brought into one form before they are merged, and that
needs to know where a secret, a list or a section is meant. Paths are tuples of keys; an
element of a list has its number there.
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from gateway.settings.values import IN_A_FILE

Path = tuple[str, ...]


class Kind(Enum):
    """The closed set of kinds; TEXT values are never read as JSON."""

    SECTION = auto()
    NAMED = auto()
    LISTING = auto()
    SECRET = auto()
    TEXT = auto()
    OTHER = auto()


SECTION: Final = Kind.SECTION
# The singular that is accepted for a list of one.
SINGULARS: Final[Mapping[str, str]] = {"session_secret": "session_secrets"}


@dataclass(frozen=True, slots=True)
class Shape:
    """`model` is a section's; `inner` a mapping's values or a list's elements."""

    kind: Kind
    optional: bool = False
    model: type[BaseModel] | None = None
    inner: object = None

    @property
    def takes_secret(self) -> bool:
        """Whether the value is one secret, or a list of them."""
        if self.kind is Kind.LISTING:
            return shape_of(self.inner).kind is Kind.SECRET
        return self.kind is Kind.SECRET


def shape_of(annotation: object) -> Shape:
    """The shape of a field's annotation."""
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is Annotated:
        return shape_of(arguments[0])
    if origin in (Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not types.NoneType]
        shape = shape_of(rest[0]) if len(rest) == 1 else Shape(Kind.OTHER)
        return Shape(shape.kind, len(rest) < len(arguments), shape.model, shape.inner)
    if origin is tuple:
        return Shape(Kind.LISTING, inner=arguments[0])
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return Shape(Kind.NAMED, inner=arguments[1])
    if origin is Literal:
        return Shape(Kind.TEXT)
    return _plain(annotation)


def _plain(annotation: object) -> Shape:
    if not isinstance(annotation, type):
        return Shape(Kind.OTHER)
    if issubclass(annotation, BaseModel):
        return Shape(Kind.SECTION, model=annotation)
    if issubclass(annotation, SecretStr):
        return Shape(Kind.SECRET)
    # bool and the numbers are read as JSON; a date, a path and a text are not.
    if annotation is object or issubclass(annotation, bool | int | float):
        return Shape(Kind.OTHER)
    return Shape(Kind.TEXT)


def fields(model: type[BaseModel]) -> dict[str, Shape]:
    """The shapes of a section's settings, by key."""
    return {name: shape_of(field.annotation) for name, field in model.model_fields.items()}


def aliases(model: type[BaseModel]) -> dict[str, str]:
    """Every other spelling of the section's settings, to the setting: `<name>_file` for what is
    a secret or may hold one, and the singulars."""
    found = {
        f"{name}_file": name
        for name, field in model.model_fields.items()
        if shape_of(field.annotation).takes_secret or IN_A_FILE in field.metadata
    }
    for one, many in SINGULARS.items():
        if many in model.model_fields:
            found |= {one: many, f"{one}_file": many}
    return found


def places(model: type[BaseModel], name: str) -> Iterator[Path]:
    """Where below the section there is a setting of this name, NAME standing for any."""
    for key, shape in fields(model).items():
        if key == name:
            yield (key,)
        named = shape.kind is Kind.NAMED
        inner = shape_of(shape.inner) if named else shape
        if inner.model is not None:
            here = (key, "NAME") if named else (key,)
            yield from ((*here, *rest) for rest in places(inner.model, name))


def shape_at(root: type[BaseModel], path: Sequence[str]) -> Shape | None:
    """The shape at a path, None where the settings have nothing there."""
    shape = Shape(Kind.SECTION, model=root)
    for part in path:
        if shape.kind is Kind.SECTION and shape.model is not None:
            found = fields(shape.model).get(part)
            if found is None:
                return None
            shape = found
        elif shape.kind in (Kind.NAMED, Kind.LISTING):
            shape = shape_of(shape.inner)
        else:
            return None
    return shape
