"""A chunked request body (RFC 9112 section 7.1), without what two parsers read differently.

h11's reader takes bare line feeds and folded lines in trailers, and a bare CR in a chunk's
extension. As in a head, each of those can hide a second request from a proxy in front.

It relies on h11's insides, so `serving.protocols` names the version that it was tested with.
"""

import re
from typing import Final

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer

from gateway.serving.http1_head import BARE

_FOLDED: Final = re.compile(rb"\r\n[ \t]")
_END: Final = b"\r\n\r\n"


def be_strict(connection: h11.Connection) -> None:
    """From now on a chunked body, if that is what comes next, is read without what is lax."""
    if isinstance(connection._reader, ChunkedReader):  # noqa: SLF001 - h11 offers no way
        connection._reader = _Chunks()  # noqa: SLF001


class _Chunks(ChunkedReader):
    """h11's reader, which looks at every line before it is taken for one."""

    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        """The next part of the body; None while it has not come."""
        data = buf._data  # noqa: SLF001 - its public form is a copy
        if self._reading_trailer and not data.startswith(b"\r\n"):
            end = data.find(_END)
            _judge(data, 0, end + len(_END) if end >= 0 else len(data))
        elif not self._reading_trailer and not self._bytes_in_chunk:
            start = len(self._bytes_to_discard)  # what ends the chunk before
            _judge(data, start, data.find(b"\n", start) + 1 or len(data))
        return super().__call__(buf)


def _judge(data: bytearray, start: int, end: int) -> None:
    if BARE.search(data, start, end) or _FOLDED.search(data, start, end):
        raise h11.LocalProtocolError("lines must end with CRLF and not be folded")
