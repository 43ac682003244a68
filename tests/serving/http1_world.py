"""A server in this process with an application for tests of HTTP/1.1, and raw clients of it."""

import asyncio
import contextlib
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.serving.connections import Connections
from gateway.serving.listeners import listen, serve
from gateway.transport.asgi import Message, Receive, Send
from tests.e2e.http1 import H1
from tests.e2e.wire import Address

CLOCK_S: Final = 10.0
PIECE: Final = b"x" * 65_536
# With the path, and fields that each end their line.
GET: Final = b"GET /%b HTTP/1.1\r\nhost: a\r\n%b\r\n"
POST: Final = b"POST /%b HTTP/1.1\r\nhost: a\r\n%b\r\n"
LAST: Final = GET % (b"last", b"connection: close\r\n")


@dataclass
class Record:
    """What the application saw of one request."""

    scope: Message
    body: bytes = b""
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0


class App:
    """An ASGI application that does what the path says and remembers every request.

    `/echo` answers with the body; `/early` with 401 before the body; `/parts` with three body
    messages; `/wait` when `gate` is set; `/flood` as much as is taken; `/raise` and `/break` with
    a fault before and after the head; `/length` with a declared length; `/nothing` with 204.
    """

    def __init__(self) -> None:
        self.seen: list[Record] = []
        self.gate = asyncio.Event()
        self.over = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        record = Record(scope)
        self.seen.append(record)
        act: Callable[[Record, Receive, Send], Awaitable[None]] = getattr(
            self, "do_" + scope["path"].strip("/").partition("/")[0], self.do_echo
        )
        try:
            await act(record, receive, send)
        finally:
            self.over += 1

    @property
    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [record.scope["path"] for record in self.seen]

    async def do_echo(self, record: Record, receive: Receive, send: Send) -> None:
        if "http.request.continue" in record.scope["extensions"]:
            await send({"type": "http.request.continue"})
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                record.disconnected.set()
                return
            record.body += message["body"]
            more = message["more_body"]
        await reply(send, 200, record.body)

    async def do_early(self, _: Record, __: Receive, send: Send) -> None:
        await reply(send, 401, b"no")

    async def do_parts(self, record: Record, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two", b"three"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            record.sent += 1
        await send({"type": "http.response.body", "body": b""})

    async def do_wait(self, record: Record, receive: Receive, send: Send) -> None:
        await receive()
        gone = asyncio.create_task(self._gone(record, receive))
        await asyncio.wait(
            [gone, opened := asyncio.create_task(self.gate.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        gone.cancel()
        opened.cancel()
        await reply(send, 200, b"waited")

    async def _gone(self, record: Record, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        record.disconnected.set()

    async def do_flood(self, record: Record, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(self._gone(record, receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not record.disconnected.is_set():
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            record.sent += len(PIECE)
            await asyncio.sleep(0)
        await gone

    async def do_raise(self, _: Record, __: Receive, ___: Send) -> None:
        raise RuntimeError("meant to")

    async def do_break(self, _: Record, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("meant to")

    async def do_length(self, _: Record, __: Receive, send: Send) -> None:
        await reply(send, 200, b"12345", (b"content-length", b"5"))

    async def do_nothing(self, _: Record, __: Receive, send: Send) -> None:
        await reply(send, 204, b"")


async def reply(send: Send, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
    """A whole answer, of unknown length unless a field tells it."""
    await send({"type": "http.response.start", "status": status, "headers": list(fields)})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class World:
    """One server and its application; `faults` is what it and its event loop complained of."""

    def __init__(self, address: Address, app: App, connections: Connections) -> None:
        self.address = address
        self.app = app
        self.connections = connections
        self.faults: list[object] = []

    async def connect(self) -> H1:
        """A connection; the caller closes it."""
        return await H1.connect(self.address)

    async def talk(self, data: bytes, *, then_close: bool = False) -> bytes:
        """Sends bytes on a connection of their own; everything that comes until it is closed."""
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(data)
        if then_close:
            writer.write_eof()
        try:
            async with asyncio.timeout(CLOCK_S):
                return await reader.read()
        finally:
            writer.close()

    async def asked(self) -> None:
        """Waits until a request has come."""
        async with asyncio.timeout(CLOCK_S):
            while not self.app.seen:
                await asyncio.sleep(0.01)

    async def settled(self) -> None:
        """Waits until no connection and no request is left."""
        async with asyncio.timeout(CLOCK_S):
            while len(self.connections) or self.app.over < len(self.app.seen):
                await asyncio.sleep(0.01)


class _Complaints(logging.Handler):
    def __init__(self, found: list[object]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        self._found.append(record.getMessage())


@asynccontextmanager
async def serving(*, idle_s: float = 30, unread_s: float = 30) -> AsyncIterator[World]:
    """A server that ends with nothing left open and nothing wrong."""
    stop, app, connections = asyncio.Event(), App(), Connections()
    with listen("127.0.0.1:0", unread_s=unread_s) as sock:
        world = World(Address(*sock.getsockname()), app, connections)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: world.faults.append(context))
        log = logging.getLogger("gateway.serving")
        complaints = _Complaints(world.faults)
        log.addHandler(complaints)
        task = asyncio.create_task(serve(app, [sock], stop, idle_s=idle_s, connections=connections))
        try:
            yield world
        finally:
            stop.set()
            async with asyncio.timeout(CLOCK_S):
                await task
            log.removeHandler(complaints)
    await world.settled()
    assert world.faults == []


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def blocking(address: Address) -> socket.socket:
    """A connected socket with a small receive buffer, which the caller reads or not."""
    client = socket.socket()
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(address)
    client.setblocking(False)
    return client


def reset(client: socket.socket) -> None:
    """Closes a client's socket with a TCP reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def statuses(answers: bytes) -> list[int]:
    """The status of every answer in what a connection sent."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answers)]
