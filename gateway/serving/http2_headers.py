"""Request header blocks: HPACK with bounds (RFC 7541), and the rules of RFC 9113 section 8.

hpack stops in the middle of a list that is too long, and then the table that both sides share is
out of step and the connection lost. Here the rest of such a block is read for its changes to the
table only, so that the request can be answered and the connection lives on.
"""

import re
from dataclasses import dataclass
from typing import Final

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import HPACKError
from hpack.hpack import Decoder, decode_integer
from hpack.struct import HeaderTuple

from gateway.messages import RequestHead
from gateway.serving.connections import request_head
from gateway.serving.http1_head import HOST
from gateway.serving.http2_floods import Flood

Field = tuple[bytes, bytes]

# Twice what the application takes, so that what is somewhat over is still refused by it, in the
# shape of the dialect that was asked for.
LIST_BYTES: Final = 32_768
LIST_FIELDS: Final = 208
_LITERALS: Final = 416  # of a block that is too long; each costs time, and an index nearly none
_INTEGER_BYTES: Final = 10

_INDEXED: Final = re.compile(rb"[\x80-\xfe]*")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = re.compile(rb"/[\x21-\x7e]*|\*")
_BAD_VALUE: Final = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_SCHEMES: Final = (b"http", b"https")  # either may come through a proxy that ends TLS
_REQUIRED: Final = (b":method", b":scheme", b":path")
_PSEUDO: Final = frozenset((*_REQUIRED, b":authority"))
# RFC 9113 section 8.2.2.
_OF_THE_CONNECTION: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)


class CompressionError(ProtocolError):
    """A header block cannot be decoded, so no later one can be either."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class Malformed(Exception):
    """A request breaks a rule of RFC 9113 section 8; only its stream has to end."""


@dataclass(frozen=True, slots=True)
class RequestFields:
    """A request's head: `target` is the `:path`, `fields` begin with `host`.

    `length` is the declared length of the body, if any.
    """

    method: str
    target: bytes
    fields: list[Field]
    length: int | None

    def for_gate(self) -> RequestHead:
        """As a gate judges it."""
        return request_head(self.method, self.target, self.fields, "2")


class HeaderDecoder(Decoder):
    """HPACK's decoder, which bounds a list without losing the table.

    `overlong` says whether the last list was over its bounds.
    """

    def __init__(self) -> None:
        super().__init__(LIST_BYTES)
        self.overlong = False

    def fields(self, block: bytes) -> list[HeaderTuple]:
        """The fields of a whole block; of one that is too long, those before its bounds.

        Raises `CompressionError`, and `Flood` for a block that would cost too much time.
        """
        self.overlong = False
        fields: list[HeaderTuple] = []
        size = at = literals = 0
        try:
            while at < len(block):
                first = block[at]
                if self.overlong and 0x80 <= first < 0xFF:
                    found = _INDEXED.match(block, at)
                    at = found.end() if found else at + 1
                    continue
                field, used = self._field(block, at, first, begun=bool(fields))
                at += used
                literals += first < 0x80
                if field is None or self.overlong:
                    if literals > _LITERALS:
                        raise Flood("too many header fields")
                    continue
                fields.append(field)
                size += 32 + len(field[0]) + len(field[1])
                self.overlong = size > LIST_BYTES or len(fields) > LIST_FIELDS
            self._assert_valid_table_size()
        except (HPACKError, IndexError) as error:
            raise CompressionError(f"a header block that cannot be decoded: {error}") from error
        return fields

    def _field(
        self, block: bytes, at: int, first: int, *, begun: bool
    ) -> tuple[HeaderTuple | None, int]:
        """The field at `at` and the bytes that it takes (RFC 7541 section 6)."""
        if first & 0x80:
            index, used = decode_integer(block[at : at + _INTEGER_BYTES], 7)
            return HeaderTuple(*self.header_table.get_by_index(index)), used
        if first & 0x40:
            return self._decode_literal(block[at:], should_index=True)
        if first & 0x20:
            if begun:
                raise CompressionError("a table size in the middle of a header block")
            return None, self._update_encoding_context(block[at : at + _INTEGER_BYTES])
        return self._decode_literal(block[at:], should_index=False)


def read_request(fields: list[Field], *, ended: bool) -> RequestFields:
    """A request's fields, judged; `ended` says that no body follows. Raises `Malformed`."""
    pseudo: dict[bytes, bytes] = {}
    regular: list[Field] = [(b"host", b"")]
    host: bytes | None = None
    length: int | None = None
    for name, value in fields:
        if name.startswith(b":"):
            if name in pseudo or name not in _PSEUDO or len(regular) > 1 or host is not None:
                raise Malformed("a pseudo field where none may be")
            pseudo[name] = value
            continue
        _check_field(name, value)
        if name == b"host":
            if host is not None:
                raise Malformed("two hosts")
            host = value
            continue
        if name == b"content-length":
            length = int(value)  # the connection has judged it already
        regular.append((name, value))
    method = _checked_pseudo(pseudo, host)
    if ended and length:
        raise Malformed("a body was declared and none comes")
    regular[0] = (b"host", pseudo.get(b":authority", host or b""))
    return RequestFields(method, pseudo[b":path"], regular, length)


def has_bad_name(fields: list[Field]) -> bool:
    """Whether trailers have what only a head may have, or a name that no field may have."""
    return any(not _NAME.fullmatch(name) for name, _ in fields)


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name):
        raise Malformed("a field's name has characters that it may not have")
    if _BAD_VALUE.search(value):
        raise Malformed("a field's value has characters that it may not have")
    if name in _OF_THE_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
        raise Malformed("a field of the connection")


def _checked_pseudo(pseudo: dict[bytes, bytes], host: bytes | None) -> str:
    """The method, if the pseudo fields are those of a request (RFC 9113 section 8.3.1)."""
    if any(name not in pseudo for name in _REQUIRED):
        raise Malformed("a pseudo field is missing")
    if pseudo[b":scheme"] not in _SCHEMES:
        raise Malformed("a scheme that is not served")
    if not _TARGET.fullmatch(pseudo[b":path"]):
        raise Malformed("a path that is none")
    authority = pseudo.get(b":authority", host)
    if authority is None or not HOST.fullmatch(authority):
        raise Malformed("no authority, or one that is malformed")
    if host is not None and authority != host:
        raise Malformed("two different authorities")
    method = pseudo[b":method"]
    if not _METHOD.fullmatch(method) or method == b"CONNECT":
        raise Malformed("a method that is none here")
    return method.decode("ascii")
