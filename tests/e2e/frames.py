"""A raw HTTP/2 client (RFC 9113): frames are sent as they are given and read one by one.

It does nothing by itself: no SETTINGS ACK, no PING ACK, no credit, so that a test says all that
the server gets. Frames are hyperframe's; `seen` keeps all that came.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable
from typing import Final, TypeVar

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.e2e.wire import CLOCK_S, Address

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = Iterable[tuple[str, str | bytes]]
F = TypeVar("F", bound=Frame)


class Frames:
    """One connection."""

    def __init__(
        self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.address = address
        self.seen: list[Frame] = []
        self.fields: dict[int, dict[str, str]] = {}
        self.reader = reader
        self.writer = writer
        self._encoder = Encoder()
        self._decoder = Decoder()

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        settings: dict[int, int] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> "Frames":
        """Connects and sends the preface with these settings."""
        async with asyncio.timeout(CLOCK_S):
            reader, writer = await asyncio.open_connection(*address, ssl=tls)
        self = cls(address, reader, writer)
        self.write(PREFACE, SettingsFrame(0, settings=settings or {}))
        return self

    def write(self, *parts: Frame | bytes) -> None:
        """Sends frames or bytes, all in one write."""
        data = b"".join(p if isinstance(p, bytes) else p.serialize() for p in parts)
        if self.writer.transport.is_closing():
            return  # asyncio would complain of the writes, and not of the server's
        with contextlib.suppress(RuntimeError):  # closed already
            self.writer.write(data)

    def block(self, fields: Fields) -> bytes:
        """A header block; the connection's table advances, so it has to be sent."""
        return self._encoder.encode(list(fields))

    def request(
        self,
        number: int,
        path: str | bytes = "/",
        *more: tuple[str, str | bytes],
        method: str | bytes = "GET",
        end: bool = True,
    ) -> HeadersFrame:
        """A request's HEADERS frame."""
        fields: list[tuple[str, str | bytes]] = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
            *more,
        ]
        return self.headers(number, fields, end=end)

    def headers(self, number: int, fields: Fields, *, end: bool = True) -> HeadersFrame:
        """A HEADERS frame with any fields."""
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        return HeadersFrame(number, self.block(fields), flags=flags)

    @staticmethod
    def data(number: int, data: bytes = b"", *, end: bool = False) -> DataFrame:
        """A DATA frame."""
        return DataFrame(number, data, flags=["END_STREAM"] if end else [])

    @staticmethod
    def rst(number: int, code: int = 8) -> RstStreamFrame:
        """A RST_STREAM frame."""
        return RstStreamFrame(number, error_code=code)

    @staticmethod
    def credit(number: int, size: int) -> WindowUpdateFrame:
        """A WINDOW_UPDATE frame; stream 0 is the connection."""
        return WindowUpdateFrame(number, window_increment=size)

    @staticmethod
    def split(frame: HeadersFrame, size: int = 16_384) -> list[Frame]:
        """A HEADERS frame and the CONTINUATION frames that it takes."""
        parts = [frame.data[at : at + size] for at in range(0, len(frame.data), size)]
        if len(parts) < 2:
            return [frame]
        frame.data = parts[0]
        frame.flags.discard("END_HEADERS")
        more = [ContinuationFrame(frame.stream_id, part) for part in parts[1:]]
        more[-1].flags.add("END_HEADERS")
        return [frame, *more]

    async def read(self) -> Frame | None:
        """The next frame; None at the connection's end."""
        try:
            async with asyncio.timeout(CLOCK_S):
                head = await self.reader.readexactly(9)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self.reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return None
        self.seen.append(frame)
        if isinstance(frame, HeadersFrame):
            fields = self._decoder.decode(frame.data)
            self.fields[frame.stream_id] = {str(name): str(value) for name, value in fields}
        return frame

    async def expect(self, kind: type[F], number: int | None = None) -> F:
        """Reads until such a frame comes; fails at the connection's end."""
        while (frame := await self.read()) is not None:
            if isinstance(frame, kind) and number in (None, frame.stream_id):
                return frame
        raise AssertionError(f"no {kind.__name__}, but {self.seen}")

    async def status(self, number: int) -> str:
        """The status of the answer on a stream."""
        await self.expect(HeadersFrame, number)
        return self.fields[number][":status"]

    async def body(self, number: int) -> list[bytes]:
        """The DATA frames of a stream up to its end; fails if it is reset."""
        parts = []
        while True:
            frame = await self.expect(Frame, number)
            assert not isinstance(frame, RstStreamFrame), frame
            if isinstance(frame, DataFrame) and frame.data:
                parts.append(frame.data)
            if "END_STREAM" in frame.flags:
                return parts

    async def reset(self, number: int) -> int:
        """The error code of the RST_STREAM that comes for a stream."""
        return int((await self.expect(RstStreamFrame, number)).error_code)

    async def expect_credit(self, number: int) -> WindowUpdateFrame:
        """The next WINDOW_UPDATE for a stream."""
        return await self.expect(WindowUpdateFrame, number)

    async def goaway(self) -> GoAwayFrame:
        """The next GOAWAY."""
        return await self.expect(GoAwayFrame)

    async def end(self) -> list[Frame]:
        """All frames that still come before the server closes the connection."""
        before = len(self.seen)
        while await self.read() is not None:
            pass
        return self.seen[before:]

    async def close(self) -> None:
        """Closes the connection."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> "Frames":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
