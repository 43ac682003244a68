"""What both raw clients speak of: an address, a request, an answer, and one running exchange.

An answer keeps the body in the parts in which it came (HTTP/1.1 chunks, HTTP/2 DATA frames), so
that a test can judge record boundaries, and says whether the end was a clean one.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from tests.e2e.canaries import found_in

CLOCK_S: Final = 20.0


class Address(NamedTuple):
    """Where a listener is."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """From `HOST:PORT`."""
        host, _, port = text.rpartition(":")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Request:
    """A request to send; `host` stands in for the address where set."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    host: str | None = None

    def plus(self, *fields: tuple[str, str]) -> "Request":
        """The same request with more header fields."""
        return Request(self.method, self.path, (*self.headers, *fields), self.body, self.host)

    def without(self, name: str) -> "Request":
        """The same request without a header field."""
        kept = tuple(field for field in self.headers if field[0] != name)
        return Request(self.method, self.path, kept, self.body, self.host)

    def to(self, method: str, path: str) -> "Request":
        """The same request with another request line."""
        return Request(method, path, self.headers, self.body, self.host)

    def carrying(self, body: bytes) -> "Request":
        """The same request with another body."""
        return Request(self.method, self.path, self.headers, body, self.host)


@dataclass
class Answer:
    """What came back so far. `ended` is true only after a proper end of the message."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def body(self) -> bytes:
        """All body bytes so far."""
        return b"".join(self.parts)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> object:
        """The body as JSON."""
        return json.loads(self.body)

    def header(self, name: str, default: str = "") -> str:
        """A field's first value."""
        for key, value in self.headers:
            if key == name:
                return value
        return default


class Exchange(Protocol):
    """One request under way, the same on both versions of HTTP."""

    answer: Answer

    async def head(self) -> Answer:
        """Waits for status and headers."""
        ...

    async def part(self) -> bytes | None:
        """The next part of the body; None at its end, clean or not (`answer.ended` says which)."""
        ...

    async def vanish(self) -> None:
        """Goes away without a word: FIN on HTTP/1.1, RST_STREAM on HTTP/2."""
        ...


async def parts(exchange: Exchange) -> AsyncIterator[bytes]:
    """Every part that is still to come."""
    while (part := await exchange.part()) is not None:
        yield part


async def shown(exchange: Exchange, text: str) -> None:
    """Reads until this has come; the records before it may come on their own."""
    async for _ in parts(exchange):
        if text.encode() in exchange.answer.body:
            return
    raise AssertionError(f"{text!r} did not come: {exchange.answer.text}")


async def whole(exchange: Exchange) -> Answer:
    """The answer to its end; one that is an error may tell nothing that was planted."""
    await exchange.head()
    async for _ in parts(exchange):
        pass
    answer = exchange.answer
    if answer.status >= 400:
        told = f"{answer.headers} {answer.body!r}"
        assert not found_in(told), told
    return answer
