"""Strict readers of the streams that this gateway sends, one module per dialect.

A reader is a small client, written from a vendor's document and not from an encoder: it shares no
code with either side of the gateway. It takes the bytes of one answer as they come, in any split,
and raises `Broken` at the first one that breaks a rule of its wire. `gateway chat` shows what it
reads, `gateway certify` and the tests judge by it.

`gateway.readers.<dialect>` has a dict `READERS` from the word of a framing to its class, and
`refusal`, which reads the body of an answer that failed before its stream began.

Limits: a record has at most 16 MiB, a body 64 MiB.
"""

from typing import Final, Protocol

import orjson

MAX_RECORD: Final = 16 * 1024 * 1024
MAX_BODY: Final = 64 * 1024 * 1024

Members = dict[str, object]
Tokens = tuple[int, int]


class Broken(ValueError):
    """The body breaks a rule of its wire; the message says which."""


class Reader(Protocol):
    """A response body in, what a user of the vendor's client would see out.

    `text` is the whole text shown, `terminals` has "ok" or "error" for every terminal record,
    `records` what was parsed, in order, `usage` the tokens in and out that the records state.
    Any split of the body gives the same.
    """

    text: str
    terminals: list[str]
    records: list[object]
    usage: Tokens | None

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body. Raises `Broken`."""
        ...

    def close(self) -> None:
        """The body is over. Raises `Broken` if something is missing."""
        ...


def demand(holds: bool, rule: str) -> None:
    """Raises `Broken` with the rule unless it holds."""
    if not holds:
        raise Broken(rule)


def parsed(text: str | bytes) -> object:
    """The value of a JSON text (RFC 8259), which holds no lone surrogate."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Broken("a record is no JSON") from None


def members(value: object) -> Members:
    """The value, which has to be a JSON object."""
    if not isinstance(value, dict):
        raise Broken("a record is no JSON object")
    return value


def word(record: Members, name: str) -> str:
    """A member, which has to be there and a string."""
    value = record.get(name)
    if not isinstance(value, str):
        raise Broken(f"{name} is no string")
    return value


def tokens(value: object, first: str, second: str) -> Tokens:
    """Two counts of a record, which have to be whole numbers."""
    record = members(value)
    counted, generated = record.get(first), record.get(second)
    if type(counted) is not int or type(generated) is not int:
        raise Broken(f"{first} or {second} is no whole number")
    return counted, generated


def ascii_text(data: bytes) -> str:
    """The bytes as text, which has to be ASCII: naive clients cut it anywhere."""
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise Broken("a byte is not ASCII") from None


class Body:
    """The bytes of an answer that is read at its end."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Keeps some more bytes."""
        self._size += len(chunk)
        demand(self._size <= MAX_BODY, "the body has no end")
        self._parts.append(chunk)

    def close(self) -> Members:
        """The JSON object that the body is."""
        return members(parsed(ascii_text(b"".join(self._parts))))


class Lines:
    """Bytes in, whole lines out; `\\n` ends a line, and empty ones mean nothing."""

    __slots__ = ("_held", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` ends, without those that are empty."""
        first, *more = chunk.split(b"\n")
        self._parts.append(first)
        self._held += len(first)
        if not more:
            demand(self._held <= MAX_RECORD, "a record has no end")
            return []
        lines = [b"".join(self._parts), *more]
        self._parts = [lines.pop()]
        self._held = len(self._parts[0])
        return [line for line in lines if line.strip()]

    def close(self) -> None:
        """The body is over."""
        demand(self._held == 0, "the body ends inside a line")
