"""Listening sockets, and Hypercorn on them."""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, LifespanState
from hypercorn.utils import wrap_app

from gateway.serving.acceptor import Acceptor
from gateway.serving.connection import Connection, Streams
from gateway.serving.connections import Connections, Gate, OpenGate, ServingConfig
from gateway.serving.protocols import install

_BACKLOG: Final = 2048
_GRACEFUL_S: Final = 2.0
_TO_DO: Final[Mapping[int | None, str]] = {
    errno.EADDRINUSE: "stop what uses it or choose another port",
    errno.EACCES: "choose a port above 1023, or let this process have CAP_NET_BIND_SERVICE",
}
_NOT_OURS: Final = "choose an address of this machine, or 0.0.0.0 for all that it has"

_log: Final = logging.getLogger("gateway.serving")


class ListenError(Exception):
    """A socket cannot be bound; the message says which and what to do."""


def listen(bind: str, *, unread_s: float, setting: str = "server.bind") -> socket.socket:
    """A listening TCP socket for `HOST:PORT` or `[IPV6]:PORT`; port 0 takes a free one.

    `setting` is where the address came from, for the error.

    Connections queue in the kernel from now on, before anybody accepts them. One whose peer takes
    nothing of what was sent for `unread_s` is broken off by the kernel (Linux only).
    """
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Accepted connections inherit it. A server that closes one waits until the peer
                # has read everything, and a peer that reads nothing would keep it for ever.
                wait_ms = round(unread_s * 1000)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, wait_ms)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such host name"
        to_do = _TO_DO.get(getattr(error, "errno", None), _NOT_OURS)
        raise ListenError(f"cannot listen on {bind} ({setting}): {reason}; {to_do}") from error
    sock.setblocking(False)
    return sock


def address(sock: socket.socket) -> str:
    """`HOST:PORT` of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(
    app: Any,  # Hypercorn's own application type is a union of TypedDict callables
    sockets: Sequence[socket.socket],
    stop: asyncio.Event,
    *,
    idle_s: float,
    unread_s: float = 60.0,
    connections: Connections | None = None,
    secure: Sequence[socket.socket] = (),
    tls: ssl.SSLContext | None = None,
    refused: Callable[[str], None] = lambda _: None,
    gate: Gate | None = None,
) -> None:
    """Serves until `stop` is set, then closes every connection; otherwise as `serving`."""
    async with serving(
        app,
        sockets,
        idle_s=idle_s,
        unread_s=unread_s,
        connections=connections,
        secure=secure,
        tls=tls,
        refused=refused,
        gate=gate,
    ):
        await stop.wait()


@asynccontextmanager
async def serving(
    app: Any,  # as above
    sockets: Sequence[socket.socket],
    *,
    idle_s: float,
    unread_s: float = 60.0,
    connections: Connections | None = None,
    secure: Sequence[socket.socket] = (),
    tls: ssl.SSLContext | None = None,
    refused: Callable[[str], None] = lambda _: None,
    gate: Gate | None = None,
) -> AsyncIterator["Server"]:
    """Serves in the block; at its end every connection is closed.

    HTTP/1.1 and h2c on `sockets`; on `secure`, under `tls`, whichever of both its ALPN chose.
    `connections` tells what is open of a drain; a client that takes nothing for `unread_s` is
    broken off. `refused` hears the error kind of each request that is no request at all; `gate`
    judges the others by their heads, before the application, while it sheds.
    Raises `UntestedVersion`.
    """
    install()
    connections = Connections() if connections is None else connections
    config = ServingConfig(
        connections,
        unread_s=unread_s,
        refused=refused,
        gate=OpenGate() if gate is None else gate,
    )
    _configure(config, idle_s)
    server = Server(wrap_app(app, config.wsgi_max_body_size, "asgi"), config)
    async with server.lifespan():
        try:
            for sock in sockets:
                server.listen(sock)
            for sock in secure:
                server.listen(sock, tls)
            yield server
        finally:
            connections.stop()
            await server.close()


class Server:
    """Hypercorn's connections on sockets of ours, each in a task of its own.

    Its own `worker_serve` waits without an end for clients that do not close, on TLS and, from
    Python 3.12.1 on, without it too.
    """

    def __init__(self, app: AppWrapper, config: Config) -> None:
        self._app = app
        self._config = config
        self._context = WorkerContext(None)
        self._state: LifespanState = {}
        self._loop = asyncio.get_running_loop()
        self._acceptors: list[Acceptor] = []
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """The application's own start and end."""
        lifespan = Lifespan(self._app, self._config, self._loop, self._state)
        task = self._loop.create_task(lifespan.handle_lifespan())
        try:
            await lifespan.wait_for_startup()
            if task.done():
                task.result()
            yield
            await lifespan.wait_for_shutdown()
        finally:
            task.cancel()
            await asyncio.wait([task])

    def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accepts connections.

        A TLS handshake has as long as a connection may be idle, and so has the end of one: a client
        may be slow to take the last of its answer, and many never answer the close_notify.
        """
        patience_s = self._config.keep_alive_timeout
        self._acceptors.append(
            Acceptor(sock, self._streams, tls=tls, handshake_s=patience_s, goodbye_s=patience_s)
        )

    def _streams(self) -> Streams:
        return Streams(self._loop, self._connected)

    def _connected(self, streams: Streams, writer: asyncio.StreamWriter) -> None:
        connection = Connection(
            self._app,
            self._loop,
            self._config,
            self._context,
            self._state,
            streams.reader,
            writer,
        )
        streams.on_lost = connection.go_on
        task = self._loop.create_task(self._serve(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection
        except OSError as error:
            _log.debug("a connection ended with %r", error)
            connection.writer.transport.abort()
        except Exception:  # noqa: BLE001 - the server's own fault, which ends no other connection
            _log.exception("connection_fault")
            connection.writer.transport.abort()

    def stop_accepting(self) -> None:
        """Leaves the sockets to others; connections go on."""
        for acceptor in self._acceptors:
            acceptor.close()

    async def emptied(self) -> None:
        """Waits until the last connection has ended, those that are being opened included."""
        while waited_for := self._connections.union(*(it.opening for it in self._acceptors)):
            await asyncio.wait(waited_for)

    async def close(self) -> None:
        """Stops accepting, and gives connections a moment to end."""
        self.stop_accepting()
        for acceptor in self._acceptors:
            acceptor.break_off()
        await self._context.terminated.set()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_GRACEFUL_S)
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=1)


def _configure(config: Config, idle_s: float) -> None:
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.keep_alive_timeout = idle_s
    # Hypercorn's own count leaves streams without an end once it is reached.
    config.keep_alive_max_requests = 10**9
