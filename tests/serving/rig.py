"""A server of the gateway's with an application that does as its path says, on one event loop."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.serving.connections import CROWD, Connections
from gateway.serving.listeners import listen, serve
from gateway.serving.tls import server_context
from gateway.transport.asgi import Message, Receive, Send
from tests.e2e.frames import Frames
from tests.e2e.tls import CERTIFICATE, client_context
from tests.e2e.wire import Address

SOON_S = 10.0
PIECE = b"x" * 16_384
PIECES = 300


class Service:
    """The application and its server.

    `running` counts its handlers per path, `ended` those that are over, `sent` the bytes that its
    `send` took; `go` lets the waiting ones on. `refused` are the kinds of what never reached it,
    `faults` what the event loop complained of.
    """

    def __init__(self, address: Address, connections: Connections, *, tls: bool) -> None:
        self.address = address
        self.tls = tls
        self.connections = connections
        self.running: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.bodies: list[bytes] = []
        self.refused: list[str] = []
        self.records: list[bytes] = []
        self.go = asyncio.Event()
        self.faults: list[dict[str, object]] = []

    async def client(self, settings: dict[int, int] | None = None) -> Frames:
        """A raw client of it."""
        tls = client_context("h2") if self.tls else None
        return await Frames.open(self.address, settings=settings, tls=tls)

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits for it to hold."""
        async with asyncio.timeout(SOON_S):
            while not holds():
                await asyncio.sleep(0.005)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        path = scope["path"]
        self.running[path] += 1
        try:
            await self._serve(path, receive, send)
        finally:
            self.running[path] -= 1
            self.ended[path] += 1

    async def _serve(self, path: str, receive: Receive, send: Send) -> None:
        if path == "/echo":
            await self._read(receive)
        elif path == "/raise":
            raise RuntimeError("on purpose")
        elif path == "/hold":
            await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for record in {"/records": self.records, "/much": [PIECE] * PIECES}.get(path, []):
            await self._write(path, send, record)
        if path in ("/raise-late", "/short", "/wait"):
            await self._write(path, send, b"some")
        if path == "/raise-late":
            raise RuntimeError("on purpose")
        if path == "/wait":
            await self.go.wait()
        while path == "/until-gone" and (await receive())["type"] != "http.disconnect":
            pass
        if path != "/short":
            await send({"type": "http.response.body", "body": b"done", "more_body": False})
        if path == "/linger":
            await self.go.wait()

    async def _read(self, receive: Receive) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)

    async def _write(self, path: str, send: Send, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self.sent[path] += len(data)


@asynccontextmanager
async def service(
    *,
    idle_s: float = 30,
    unread_s: float = 30,
    tls: bool = False,
    narrow: bool = False,
    crowd: int = CROWD,
) -> AsyncIterator[Service]:
    """A running server; at its end no handler may be left, and nothing may have complained.

    If it is `narrow`, the system takes little of what it sends before its client reads it.
    """
    stop = asyncio.Event()
    with listen("127.0.0.1:0", unread_s=30) as sock:
        if narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        host, port = sock.getsockname()[:2]
        it = Service(Address(host, port), Connections(crowd), tls=tls)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: it.faults.append(context))
        plain, secure = ([], [sock]) if tls else ([sock], [])
        server = asyncio.create_task(
            serve(
                it,
                plain,
                stop,
                idle_s=idle_s,
                unread_s=unread_s,
                connections=it.connections,
                secure=secure,
                tls=server_context(CERTIFICATE, CERTIFICATE) if tls else None,
                refused=it.refused.append,
            )
        )
        try:
            yield it
        finally:
            it.go.set()
            stop.set()
            async with asyncio.timeout(SOON_S):
                await server
    assert not it.faults
    assert not +it.running
    assert not len(it.connections)
    assert not it.connections.streams
