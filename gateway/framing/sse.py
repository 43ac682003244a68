"""Server-sent events: bytes in, complete events out.

Wire: the WHATWG HTML standard, section "Server-sent events": lines end with LF, CRLF or CR, also
mixed; a blank line ends an event; `data` lines are joined with LF; comments, `id` and `retry` mean
nothing here; one BOM at the start is dropped.

Two deviations, both seen in model servers: the last event needs no blank line (`close` delivers
it), and a field `error`, which old llama.cpp servers send in place of `data`, is read as the data
of an event named `error`.

Limits: a line has at most 256 KiB, an event at most 1 MiB. More is an `UpstreamProtocolError`.
"""

import re
from typing import Final

from gateway.errors import UpstreamProtocolError

MAX_LINE: Final = 256 * 1024
MAX_EVENT: Final = 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
# A CR that ends the buffer may still become a CRLF, so it is no line's end yet if it comes first,
# but it does end an event if it comes second: a CR-only stream must not wait for its next event.
# An LF that follows it then is one more blank line, which means nothing.
_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n?|\n)")

SseEvent = tuple[str, bytes]
"""An event's name (empty if it has none) and its data."""


class SseReader:
    """Bytes of one stream in, its events out; any split of the bytes gives the same events.

    Events that were complete before a limit was passed are delivered first; `failure` is set then
    and every further call raises it.
    """

    __slots__ = ("_rest", "_started", "failure")

    def __init__(self) -> None:
        self.failure: UpstreamProtocolError | None = None
        self._rest = b""
        self._started = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes. Raises `UpstreamProtocolError` at a limit."""
        self._raise_failure()
        buffer = self._rest + chunk if self._rest else chunk
        if b"\r" in buffer:
            blocks = self._split_any(buffer)
        else:
            blocks = buffer.split(b"\n\n")
            self._rest = blocks.pop()
        if blocks and not self._started:
            self._started = True
            blocks[0] = blocks[0].removeprefix(_BOM)
        events: list[SseEvent] = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block:
                if len(block) <= MAX_LINE:
                    events.append(("", block[6:]))
                    continue
            if not self._read_block(block, events):
                break
        if len(self._rest) > MAX_LINE:
            self._within_limits(self._rest)
        if not events:
            self._raise_failure()
        return events

    def close(self) -> list[SseEvent]:
        """The last event if it came without its blank line; the stream is over."""
        self._raise_failure()
        block, self._rest = self._rest, b""
        events: list[SseEvent] = []
        if block:
            self._read_block(block if self._started else block.removeprefix(_BOM), events)
        self._raise_failure()
        return events

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _split_any(self, buffer: bytes) -> list[bytes]:
        blocks = []
        begin = 0
        for blank in _BLANK_LINE.finditer(buffer):
            blocks.append(buffer[begin : blank.start()])
            begin = blank.end()
        self._rest = buffer[begin:]
        return blocks

    def _read_block(self, block: bytes, events: list[SseEvent]) -> bool:
        """Reads an event's lines; False if it passes a limit."""
        if not self._within_limits(block):
            return False
        name = ""
        data: list[bytes] = []
        for line in block.splitlines():
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"error":
                name = "error"
                data.append(value)
        if data:
            events.append((name, b"\n".join(data)))
        return True

    def _within_limits(self, block: bytes) -> bool:
        if len(block) > MAX_EVENT:
            self.failure = UpstreamProtocolError(f"an event has more than {MAX_EVENT} bytes")
        elif len(block) > MAX_LINE and any(len(line) > MAX_LINE for line in block.splitlines()):
            self.failure = UpstreamProtocolError(f"a line has more than {MAX_LINE} bytes")
        return self.failure is None
