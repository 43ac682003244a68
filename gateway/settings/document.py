"""A YAML file as plain values, with the line of every setting.

YAML 1.1 as PyYAML's safe loader reads it (no tags that build objects), and stricter: a key that
is given twice, and a key that is not text, are problems. Aliases and merge keys work; what they
expand to is bounded.
"""

from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

import yaml

from gateway.settings.problems import ConfigError, Problem
from gateway.settings.shape import Path

_MAX_BYTES: Final = 4 * 1024 * 1024
_MAX_NODES: Final = 200_000
_MAX_DEPTH: Final = 50
_MERGE: Final = "tag:yaml.org,2002:merge"
_NULL: Final = "tag:yaml.org,2002:null"
_PLAIN: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(slots=True)
class Document:
    """The file's values, the lines of their keys (from 1), and what is wrong with its form."""

    values: dict[str, object]
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_document(path: FilePath) -> Document:
    """Reads the file. Raises `ConfigError` if it cannot be read or is no YAML mapping."""
    name = str(path)
    text = _text(path)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None or root.tag == _NULL:
            return Document({})
        if not isinstance(root, yaml.MappingNode):
            raise _broken(name, root.start_mark.line + 1, "must be a mapping of settings")
        return _Builder(loader, name).document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        raise _broken(name, line, _explained(error)) from None
    except RecursionError:
        raise _broken(name, None, "is too deeply nested") from None
    except yaml.reader.ReaderError as error:
        raise _broken(name, None, f"is not YAML text: bad character at {error.position}") from None


def _text(path: FilePath) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise _broken(str(path), None, f"is larger than {_MAX_BYTES} bytes")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise _broken(str(path), None, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _broken(str(path), None, f"is not UTF-8: bad byte at {error.start}") from None


def _explained(error: yaml.MarkedYAMLError) -> str:
    # PyYAML quotes the file for these two, and what it quotes may be part of a secret.
    if isinstance(error, yaml.composer.ComposerError):
        return "undefined alias or a second document; quote a value that begins with *"
    if isinstance(error, yaml.constructor.ConstructorError):
        return "a tag or value that YAML's safe types do not have; quote a value with a leading !"
    return f"is not valid YAML: {error.problem or 'syntax error'}"


def _broken(file: str, line: int | None, text: str) -> ConfigError:
    return ConfigError([Problem(file, line, "", text)])


class _Builder:
    def __init__(self, loader: yaml.SafeLoader, file: str) -> None:
        self._loader = loader
        self._file = file
        self._result = Document({})
        self._flattened: set[int] = set()
        self._nodes = 0

    def document(self, root: yaml.MappingNode) -> Document:
        self._result.values = self._mapping(root, ())
        return self._result

    def _value(self, node: yaml.Node, path: Path) -> object:
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise _broken(self._file, node.start_mark.line + 1, "is too large or too deeply nested")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN:
            self._problem(node.start_mark.line + 1, path, "has a YAML tag; remove it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return tuple(
                self._value(item, (*path, str(index))) for index, item in enumerate(node.value)
            )
        value = self._scalar(node, path)
        return self._whole(node, path, value) if isinstance(value, str) else value

    def _scalar(self, node: yaml.Node, path: Path) -> object:
        try:
            value: object = self._loader.construct_object(node)
        except ValueError:
            line = node.start_mark.line + 1
            self._problem(line, path, "looks like a date or number and is none; put it in quotes")
            return ""
        return value

    def _whole(self, node: yaml.Node, path: Path, text: str) -> str:
        """JSON writes a character outside the BMP as two escapes, which YAML does not join."""
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            line = node.start_mark.line + 1
            self._problem(line, path, "holds half of a character (a lone surrogate)")
            return ""

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        if id(node) not in self._flattened:
            self._flattened.add(id(node))
            self._refuse_repeats(node, path)
            if any(key.tag == _MERGE for key, _ in node.value):
                self._loader.flatten_mapping(node)
        result: dict[str, object] = {}
        for key, value in node.value:
            name = self._key(key, path)
            if name is not None:
                self._result.lines[(*path, name)] = key.start_mark.line + 1
                result[name] = self._value(value, (*path, name))
        return result

    def _refuse_repeats(self, node: yaml.MappingNode, path: Path) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                text = f"is given twice, first on line {first[key.value]}; keep one"
                self._problem(line, (*path, key.value), text)
            first.setdefault(key.value, line)

    def _key(self, key: yaml.Node, path: Path) -> str | None:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            self._problem(line, path, "a key must be text")
            return None
        value = self._scalar(key, path)
        if not isinstance(value, str):
            text = f"YAML reads this key as {type(value).__name__}; put it in quotes"
            self._problem(line, (*path, key.value), text)
            return None
        return value

    def _problem(self, line: int, path: Path, text: str) -> None:
        self._result.problems.append(Problem(self._file, line, ".".join(path), text))
