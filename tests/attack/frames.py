"""A raw HTTP/2 client (RFC 9113) that can lie: frames are bytes, nothing is checked or repaired.

It answers SETTINGS and PING and gives flow control credit while `generous`; everything else is
the attack's. A stream is a `Lane`, which is an `Exchange` as the readers of answers want it.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Final

from hpack import Decoder, Encoder, HPACKError

from tests.e2e.wire import Address, Answer, Request

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 7, 8, 11
INITIAL_WINDOW_SIZE: Final = 4
WINDOW: Final = 1 << 24
WAIT_S: Final = 15.0


def frame(kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """One frame."""
    return announced(kind, stream, len(payload), flags) + payload


def announced(kind: int, stream: int, length: int, flags: int = 0) -> bytes:
    """The header of a frame of that length."""
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream)


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, b"".join(struct.pack(">HI", *pair) for pair in values.items()))


def window_update(stream: int, credit: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, stream, struct.pack(">I", credit))


def reset(stream: int, code: int = CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, stream, struct.pack(">I", code))


def block(fields: Iterable[tuple[str | bytes, str | bytes]]) -> bytes:
    """A header block that leaves the dynamic table alone, so that it serves for every stream."""
    return Encoder().encode([(name, value, True) for name, value in fields])


def fields_of(request: Request, address: Address) -> list[tuple[str | bytes, str | bytes]]:
    """A request's pseudo-header fields and fields."""
    return [
        (":method", request.method),
        (":path", request.path),
        (":scheme", "http"),
        (":authority", request.host or str(address)),
        *request.headers,
    ]


class Wire:
    """One connection and the task that reads it.

    `goaway` is the error code of the last GOAWAY and `last` the stream that it names; `closed` is
    set at the connection's end.
    """

    def __init__(
        self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.address = address
        self.reader = reader
        self.writer = writer
        self.lanes: dict[int, Lane] = {}
        self.goaway: int | None = None
        self.last = 0
        self.closed = asyncio.Event()
        self.generous = True
        self.next = 1
        self._decoder = Decoder()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, address: Address, *, window: int = WINDOW) -> "Wire":
        """Opens a connection; with a smaller `window` than usual credit comes only as told."""
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(*address)
        self = cls(address, reader, writer)
        self.generous = window == WINDOW
        hello = PREFACE + settings({INITIAL_WINDOW_SIZE: window})
        await self.write(hello + (window_update(0, WINDOW) if self.generous else b""))
        return self

    @property
    def refused(self) -> bool:
        """Whether the server has given the connection up."""
        return self.closed.is_set() or self.goaway is not None

    def lane(self, number: int | None = None) -> "Lane":
        """A stream of that number, else the next one; nothing is sent."""
        if number is None:
            number, self.next = self.next, self.next + 2
        lane = self.lanes[number] = Lane(self, number)
        return lane

    async def ask(self, request: Request, *, end: bool = True) -> "Lane":
        """Sends a request on a stream of its own; without `end` its body stays open."""
        lane = self.lane()
        last = END_STREAM if end else 0
        head = block(fields_of(request, self.address))
        data = frame(HEADERS, lane.number, head, END_HEADERS | (0 if request.body else last))
        if request.body:
            data += frame(DATA, lane.number, request.body, last)
        await self.write(data)
        return lane

    async def write(self, data: bytes) -> bool:
        """Sends bytes as they are; whether the connection took them."""
        if self.closed.is_set():
            return False
        try:
            self.writer.write(data)
            async with asyncio.timeout(WAIT_S):
                await self.writer.drain()
        except (OSError, TimeoutError):
            return False
        return True

    async def ends(self, within: float) -> bool:
        """Whether the server closes the connection in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self.closed.wait()
        return self.closed.is_set()

    async def close(self, *, abort: bool = False) -> None:
        """Closes the connection with a FIN, or with a TCP reset."""
        if abort:
            raw = self.writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                linger(raw.fileno())
            self.writer.transport.abort()
        self.writer.close()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _read(self) -> None:
        try:
            while True:
                head = await self.reader.readexactly(9)
                length = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = await self.reader.readexactly(length)
                self._take(kind, flags, stream & 0x7FFFFFFF, payload)
        except (asyncio.IncompleteReadError, OSError, HPACKError):
            pass  # the end, clean or not; what came before is what the case judges
        finally:
            self.closed.set()
            for lane in self.lanes.values():
                lane.changed.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == GOAWAY:
            self.last = int.from_bytes(payload[:4], "big")
            self.goaway = int.from_bytes(payload[4:8], "big")
            for lane in self.lanes.values():
                lane.changed.set()
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self.writer.write(frame(kind, 0, payload if kind == PING else b"", ACK))
        elif kind == HEADERS:
            # Also of a stream that nobody waits for: the decoder's table has to follow.
            fields = self._decoder.decode(payload)
            self._lane(stream).take_head([(str(n), str(v)) for n, v in fields], flags)
        elif kind == DATA:
            self._lane(stream).take(payload, flags)
            if self.generous and payload:
                credit = window_update(0, len(payload))
                self.writer.write(credit + window_update(stream, len(payload)))
        elif kind == RST_STREAM:
            self._lane(stream).take_reset(int.from_bytes(payload, "big"))

    def _lane(self, stream: int) -> "Lane":
        return self.lanes.get(stream) or Lane(self, stream)


class Lane:
    """One stream: what came back on it. `over` is true once nothing more can come."""

    def __init__(self, wire: Wire, number: int) -> None:
        self.wire = wire
        self.number = number
        self.answer = Answer()
        self.changed = asyncio.Event()
        self._queue: list[bytes] = []

    @property
    def over(self) -> bool:
        """Whether the stream has ended, was reset, or lost its connection."""
        return (
            self.answer.ended or self.answer.reset is not None or self.wire.closed.is_set()
        ) and not self._queue

    @property
    def fate(self) -> str:
        """What became of it, in words."""
        if self.answer.reset is not None:
            return f"reset {self.answer.reset}"
        end = "ended" if self.answer.ended else "cut" if self.wire.closed.is_set() else "open"
        return f"{self.answer.status or 'no status'}, {end}"

    def take_head(self, fields: list[tuple[str, str]], flags: int) -> None:
        """A HEADERS frame came."""
        self.answer.status = int(dict(fields).get(":status", "0"))
        self.answer.headers = [field for field in fields if not field[0].startswith(":")]
        self.answer.ended = bool(flags & END_STREAM)
        self.changed.set()

    def take(self, data: bytes, flags: int) -> None:
        """A DATA frame came."""
        if data:
            self._queue.append(data)
        self.answer.ended = self.answer.ended or bool(flags & END_STREAM)
        self.changed.set()

    def take_reset(self, code: int) -> None:
        """A RST_STREAM frame came."""
        self.answer.reset = code
        self.changed.set()

    async def head(self) -> Answer:
        """Waits for status and fields; both stay empty if the stream died before them."""
        async with asyncio.timeout(WAIT_S):
            while not (self.answer.status or self.over):
                await self._change()
        return self.answer

    async def part(self) -> bytes | None:
        """The next DATA frame's bytes; None at the end, clean or not."""
        async with asyncio.timeout(WAIT_S):
            while not self._queue:
                if self.over:
                    return None
                await self._change()
        data = self._queue.pop(0)
        self.answer.parts.append(data)
        return data

    async def ends(self, within: float = WAIT_S) -> bool:
        """Whether it is over in time, whatever way; what came is in `answer`."""
        try:
            async with asyncio.timeout(within):
                while await self.part() is not None:
                    pass
        except TimeoutError:
            return False
        return True

    async def vanish(self) -> None:
        """Resets the stream."""
        await self.wire.write(reset(self.number))

    async def _change(self) -> None:
        self.changed.clear()
        await self.changed.wait()


def linger(descriptor: int) -> None:
    """Makes the socket's close a TCP reset."""
    with socket.socket(fileno=descriptor) as view:
        view.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        view.detach()
