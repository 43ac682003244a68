"""Finds the route of a request.

Paths are compared segment by segment before percent-decoding, so an encoded slash stays inside
its segment; a parameter takes exactly one segment. A slash at the end means nothing: the vendors'
servers serve such a path too. Where GET is taken, HEAD is (RFC 9110 section 9.1).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.ports.routes import Route
from gateway.transport.asgi import decode_segment

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """A path that some route has, without a slash at its end. `target` is None if none of them
    takes the method."""

    path: str
    template: str
    params: Mapping[str, str]
    methods: tuple[str, ...]
    target: T | None
    owner: str


class Router(Generic[T]):
    """Routes with their targets; built once."""

    def __init__(self, routes: Iterable[tuple[Route, str, T]]) -> None:
        self._fixed: dict[str, dict[str, tuple[str, T]]] = {}
        self._patterns: dict[tuple[str, ...], tuple[str, dict[str, tuple[str, T]]]] = {}
        self._roots: list[tuple[tuple[str, ...], str]] = []
        for route, owner, target in routes:
            segments = tuple(route.path.split("/")[1:])
            methods: dict[str, tuple[str, T]]
            if any(segment.startswith("{") for segment in segments):
                methods = self._patterns.setdefault(segments, (route.path, {}))[1]
            else:
                methods = self._fixed.setdefault(route.path, {})
            methods[route.method] = (owner, target)
            self._roots.append((segments, owner))

    def match(self, method: str, path: str) -> Match[T] | None:
        """The route of a raw path, or None for a path that no route has."""
        path = path.removesuffix("/")
        methods = self._fixed.get(path)
        if methods is not None:
            return _found(path, path, {}, methods, method)
        segments = tuple(path.split("/")[1:])
        for pattern, (template, methods) in self._patterns.items():
            params = _params(pattern, segments)
            if params is not None:
                return _found(path, template, params, methods, method)
        return None

    def nearest_owner(self, path: str) -> str | None:
        """Whose shape an unknown path is answered in: the owner of the routes that share the
        longest beginning with it, None if that is nobody or more than one."""
        segments = tuple(path.split("/")[1:])
        best, owners = 1, set[str]()
        for known, name in self._roots:
            shared = _shared(known, segments)
            if shared > best:
                best, owners = shared, {name}
            elif shared == best:
                owners.add(name)
        return owners.pop() if len(owners) == 1 else None


def _found(
    path: str,
    template: str,
    params: Mapping[str, str],
    methods: Mapping[str, tuple[str, T]],
    method: str,
) -> Match[T]:
    implied = {"OPTIONS", "HEAD"} if "GET" in methods else {"OPTIONS"}
    allowed = tuple(sorted({*methods, *implied}))
    if method == "HEAD" and method not in methods:
        method = "GET"
    owner, target = methods.get(method, (next(iter(methods.values()))[0], None))
    return Match(path, template, params, allowed, target, owner)


def _params(pattern: tuple[str, ...], segments: tuple[str, ...]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    params: dict[str, str] = {}
    for known, segment in zip(pattern, segments, strict=True):
        if not known.startswith("{"):
            if known != segment:
                return None
            continue
        value = decode_segment(segment)
        if not value:
            return None
        params[known[1:-1]] = value
    return params


def _shared(known: tuple[str, ...], segments: tuple[str, ...]) -> int:
    count = 0
    for left, right in zip(known, segments, strict=False):
        if left != right or left.startswith("{"):
            break
        count += 1
    return count
