"""A raw HTTP/1.1 client (RFC 9112) on asyncio streams: keeps chunk boundaries, fakes nothing."""

import asyncio
import ssl
import struct
from socket import SO_LINGER, SOL_SOCKET, socket

from tests.e2e.wire import CLOCK_S, Address, Answer, Request


def head_of(request: Request, address: Address, *, declare: bool = True) -> bytes:
    """A request's head as bytes; `declare` adds the body's length."""
    lines = [f"{request.method} {request.path} HTTP/1.1", f"host: {request.host or address}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if declare and (request.body or request.method in {"POST", "PUT", "PATCH"}):
        lines.append(f"content-length: {len(request.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class H1:
    """One connection; requests go one after another."""

    def __init__(
        self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.address = address
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: Address, tls: ssl.SSLContext | None = None) -> "H1":
        """Opens a connection."""
        async with asyncio.timeout(CLOCK_S):
            reader, writer = await asyncio.open_connection(*address, ssl=tls, limit=1 << 20)
        return cls(address, reader, writer)

    async def send(self, request: Request) -> "H1Exchange":
        """Sends a request whole, with a declared length where it has a body."""
        await self.write(self.head_of(request) + request.body)
        return H1Exchange(self, request.method)

    async def send_bytes(self, data: bytes) -> "H1Exchange":
        """Sends bytes that are a request, or the beginning of one."""
        await self.write(data)
        return H1Exchange(self)

    def head_of(self, request: Request, *, declare: bool = True) -> bytes:
        """The request's head as bytes; `declare` adds the body's length."""
        return head_of(request, self.address, declare=declare)

    async def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)
        async with asyncio.timeout(CLOCK_S):
            await self.writer.drain()

    async def close(self) -> None:
        """Closes the connection with a FIN."""
        self.writer.close()
        try:
            async with asyncio.timeout(CLOCK_S):
                await self.writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass  # the other side was faster

    def abort(self) -> None:
        """Closes the connection with a TCP reset."""
        raw = self.writer.get_extra_info("socket")
        assert raw is not None
        linger = struct.pack("ii", 1, 0)
        with socket(fileno=raw.fileno()) as view:
            view.setsockopt(SOL_SOCKET, SO_LINGER, linger)
            view.detach()
        self.writer.transport.abort()


class H1Exchange:
    """One request on an HTTP/1.1 connection."""

    def __init__(self, connection: H1, method: str = "GET") -> None:
        self.connection = connection
        self.answer = Answer()
        self._method = method
        self._left: int | None = None  # bytes of a body with a declared length
        self._chunked = False

    async def head(self) -> Answer:
        """Reads status line and fields; interim answers are passed over."""
        if self.answer.status >= 200:
            return self.answer
        while True:
            await self._read_head()
            if self.answer.status >= 200:
                break
        answer = self.answer
        if answer.header("transfer-encoding") == "chunked":
            self._chunked = True
        elif answer.status in {204, 304} or self._method == "HEAD":
            self._left = 0
        elif length := answer.header("content-length"):
            self._left = int(length)
        return answer

    async def _read_head(self) -> None:
        status_line = await self._line()
        version, status, *_ = status_line.split(" ", 2)
        assert version == "HTTP/1.1", status_line
        self.answer.status = int(status)
        self.answer.headers.clear()
        while line := await self._line():
            name, _, value = line.partition(":")
            self.answer.headers.append((name.lower(), value.strip()))

    async def part(self) -> bytes | None:
        """One chunk, or of an unchunked body one read."""
        await self.head()
        if self.answer.ended:
            return None
        data = await (self._chunk() if self._chunked else self._read())
        if data:
            self.answer.parts.append(data)
        return data

    async def _chunk(self) -> bytes | None:
        try:
            size = int(await self._line(), 16)
            async with asyncio.timeout(CLOCK_S):
                data = await self.connection.reader.readexactly(size)
            assert await self._line() == ""
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        if size == 0:
            self.answer.ended = True
            return None
        return data

    async def _read(self) -> bytes | None:
        if self._left == 0:
            self.answer.ended = True
            return None
        async with asyncio.timeout(CLOCK_S):
            data = await self.connection.reader.read(65536)
        if self._left is None:
            self.answer.ended = not data
        else:
            self._left -= len(data)
            self.answer.ended = self._left == 0
        return data or None

    async def _line(self) -> str:
        async with asyncio.timeout(CLOCK_S):
            line = await self.connection.reader.readuntil(b"\r\n")
        return line[:-2].decode("latin-1")

    async def vanish(self) -> None:
        """Closes the connection."""
        await self.connection.close()
