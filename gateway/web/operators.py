"""What operators and their machines ask a gateway: probes, version and metrics.

    GET /livez         200 as long as the event loop runs; `/healthz` is its old name
    GET /readyz        200 while every check holds, else 503; `?verbose` lists the checks
    GET /version       JSON: version, python, hypercorn, sqlite
    GET /metrics       Prometheus text or OpenMetrics, by `Accept`; on the admin listener only
    GET /openapi.json  what the public listener serves; on that listener only

HEAD is answered like GET and any other method with 405 (RFC 9110 sections 9.3.2 and 15.5.6). No
answer may be stored. Probes know nothing of upstreams: an outage of a model is no reason to take
a gateway out of service.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import apsw

from gateway.messages import Reply
from gateway.replies import JSON_TYPE, json_reply
from gateway.telemetry.metrics import running_versions

_METHODS: Final = ("GET", "HEAD")
_PLAIN: Final = "text/plain; charset=utf-8"
_RETRY_S: Final = "1"
# Anybody may ask, and to take a long query apart costs thirty times what the answer does.
_VERBOSE: Final = re.compile(r"(?:^|&)verbose(?:[=&]|$)")


class Scrapes(Protocol):
    """Where the metrics come from."""

    async def scrape(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of all metrics, in the format that `accept` prefers."""
        ...


class Operators:
    """Answers the operators' paths; one for each listener that has them.

    `readiness` gives the checks by name and whether each holds, `details` further lines for
    `?verbose`. Without `metrics` there is no `/metrics`: the public listener must not have one.
    `description` is the public listener's OpenAPI document, for `/openapi.json`.
    """

    def __init__(
        self,
        metrics: Scrapes | None,
        readiness: Callable[[], Mapping[str, bool]],
        details: Callable[[], Sequence[str]] = tuple,
        *,
        description: bytes | None = None,
    ) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._details = details
        self._versions = running_versions() | {"sqlite": apsw.sqlite_lib_version()}
        self._description = description
        self.paths: Final = frozenset(
            {"/livez", "/healthz", "/readyz", "/version"}
            | ({"/metrics"} if metrics else set())
            | ({"/openapi.json"} if description is not None else set())
        )

    async def answer(self, method: str, path: str, query: str, accept: str) -> Reply | None:
        """The whole answer, or None for a path that is not the operators'.

        The answer to HEAD has GET's body, for its length: who sends it leaves the body out.
        """
        if path not in self.paths:
            return None
        if method not in _METHODS:
            return _plain(405, "method not allowed\n", ("allow", ", ".join(_METHODS)))
        if path == "/readyz":
            return self._ready(verbose=_VERBOSE.search(query) is not None)
        if path == "/version":
            return json_reply(200, self._versions)
        if path == "/openapi.json" and self._description is not None:
            return Reply(200, _headers(JSON_TYPE), self._description)
        if path == "/metrics" and self._metrics is not None:
            content_type, body = await self._metrics.scrape(accept)
            return Reply(200, _headers(content_type), body)
        return _plain(200, "ok\n")

    def _ready(self, *, verbose: bool) -> Reply:
        checks = self._readiness()
        ready = all(checks.values())
        text = "ok\n" if ready else "not ready\n"
        if verbose:
            rows = (f"[+]{n} ok\n" if ok else f"[-]{n} failed\n" for n, ok in checks.items())
            text = "".join((*rows, *(f"    {line}\n" for line in self._details()), text))
        return _plain(200, text) if ready else _plain(503, text, ("retry-after", _RETRY_S))


def _plain(status: int, text: str, *headers: tuple[str, str]) -> Reply:
    return Reply(status, (*_headers(_PLAIN), *headers), text.encode())


def _headers(content_type: str) -> tuple[tuple[str, str], ...]:
    return (
        ("content-type", content_type),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    )
