"""The head of an HTTP/1.1 request (RFC 9112): where it ends, and whether it may be served.

h11 parses what passes here. It tolerates what two parsers read differently (bare line feeds, folded
lines, a length beside a transfer coding, one length twice), and behind a proxy each of those can
hide a second request. Heads of up to twice the application's own limits get through, so that it
refuses those that are somewhat over in the words of the dialect.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.messages import RequestHead
from gateway.serving.connections import request_head

HEAD_BYTES: Final = 32_768
BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
"""What is no line end and may not stand in a line either."""
HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
"""A host and its port, in form; without a user's name (RFC 9110 section 4.2.4)."""

_FIELDS: Final = 208
_END: Final = b"\r\n\r\n"
_REQUEST_LINE: Final = re.compile(rb"([!-~]+) ([!-~]+) (HTTP/[0-9]\.[0-9])")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
# Python refuses to read a number of thousands of digits.
_LENGTH_DIGITS: Final = 18
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2
_SCHEME_PORT: Final = re.compile(rb":(?:80|443)?\Z")


class Refused(Exception):
    """A request that nobody may serve: its status, and what is wrong with it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head: `target` is always in origin form or `*`, `fields` has the values of each
    field by its name in lower case."""

    method: bytes
    target: bytes
    version: bytes
    fields: Mapping[bytes, Sequence[bytes]]

    @property
    def body_bytes(self) -> int | None:
        """How long the body is; None if only its end will tell, or nobody could send so much."""
        if b"transfer-encoding" in self.fields:
            return None
        (length,) = self.fields.get(b"content-length", (b"0",))
        return int(length) if len(length) <= _LENGTH_DIGITS else None

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants another request on the connection (RFC 9112 section 9.3)."""
        options = b",".join(self.fields.get(b"connection", ())).lower().split(b",")
        return self.version == b"HTTP/1.1" and b"close" not in map(bytes.strip, options)

    def for_gate(self) -> RequestHead:
        """As a gate judges it."""
        fields = ((name, value) for name, values in self.fields.items() for value in values)
        version = self.version.removeprefix(b"HTTP/").decode("ascii")
        return request_head(self.method.decode("ascii"), self.target, fields, version)


def head_end(buffer: bytearray, seen: int) -> int:
    """Where the head at the buffer's start ends, or -1 while it is incomplete.

    `seen` is how many bytes were looked at before. Raises `Refused`.
    """
    start = max(seen - len(_END), 0)
    found = buffer.find(_END, start, HEAD_BYTES)
    end = found + len(_END) if found >= 0 else -1
    if BARE.search(buffer, start, end if end >= 0 else min(len(buffer), HEAD_BYTES)):
        raise Refused(400, "line ends must be CRLF")
    if end < 0 and len(buffer) >= HEAD_BYTES:
        if b"\r\n" not in buffer[:HEAD_BYTES]:
            raise Refused(414, "the request target is too long")
        raise Refused(431, "too many header bytes")
    return end


def read_head(head: bytes) -> Head:
    """Judges a whole head, empty line included. Raises `Refused`."""
    request_line, *lines = head[: -len(_END)].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise Refused(400, "the request line is malformed")
    method, target, version = match.groups()
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refused(505, "this HTTP version is not spoken here")
    if method == b"CONNECT":
        raise Refused(400, "this is no proxy to anywhere")
    fields = _fields(lines)
    hosts = fields.get(b"host", [])
    if len(hosts) > 1 or (version == b"HTTP/1.1" and not hosts):
        raise Refused(400, "exactly one host is required")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise Refused(400, "the host is malformed")
    _check_length(fields, version)
    return Head(method, _origin_form(method, target, hosts), version, fields)


def _fields(lines: list[bytes]) -> dict[bytes, list[bytes]]:
    """The values of each field, by its name in lower case."""
    if len(lines) > _FIELDS:
        raise Refused(431, "too many header fields")
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise Refused(400, "a header line is malformed")
        fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return fields


def _check_length(fields: dict[bytes, list[bytes]], version: bytes) -> None:
    """RFC 9112 section 6: one way to tell where the body ends, told once."""
    lengths = fields.get(b"content-length", [])
    codings = fields.get(b"transfer-encoding", [])
    if len(lengths) > 1 or any(not length.isdigit() for length in lengths):
        raise Refused(400, "one length of a body is needed, in digits")
    if codings and lengths:
        raise Refused(400, "two lengths for one body")
    if codings and (len(codings) > 1 or version == b"HTTP/1.0"):
        raise Refused(400, "the transfer coding is malformed")


def _origin_form(method: bytes, target: bytes, hosts: list[bytes]) -> bytes:
    """RFC 9112 section 3.2: the path of a target whose authority is the host's."""
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refused(400, "the request target is malformed")
    authority, path = match.groups()
    if not hosts or _plain(authority) != _plain(hosts[0]):
        raise Refused(400, "the request target is another host's")
    return path if path.startswith(b"/") else b"/" + path


def _plain(authority: bytes) -> bytes:
    return _SCHEME_PORT.sub(b"", authority.lower())
