"""Listening sockets, and Hypercorn on them."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any, Final

from hypercorn.asyncio.run import worker_serve
from hypercorn.config import Config, Sockets
from hypercorn.utils import wrap_app

_BACKLOG: Final = 2048
_GRACEFUL_S: Final = 3.0
_HEADER_LIST_BYTES: Final = 16_384

log: Final = logging.getLogger("gateway.serving")


class ListenError(Exception):
    """A socket cannot be bound; the message says which and what to do."""


def listen(bind: str, *, unread_s: float) -> socket.socket:
    """A listening TCP socket for `HOST:PORT` or `[IPV6]:PORT`; port 0 takes a free one.

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
        raise ListenError(
            f"cannot listen on {bind}: {reason}; stop what uses it or choose another bind"
        ) from error
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
) -> None:
    """Serves HTTP/1.1 and h2c on the sockets until `stop` is set, then closes every connection.

    Hypercorn's own wait for connections has no end on Python 3.12.1 and later, so this one has.
    """
    config = _config(idle_s)
    held = Sockets(secure_sockets=[], insecure_sockets=list(sockets), quic_sockets=[])
    server = asyncio.create_task(
        worker_serve(
            wrap_app(app, config.wsgi_max_body_size, "asgi"),
            config,
            sockets=held,
            shutdown_trigger=stop.wait,
        )
    )
    try:
        await _until_stopped(server, stop)
        await asyncio.wait([server], timeout=_GRACEFUL_S + 1)
    finally:
        server.cancel()
        await asyncio.wait([server], timeout=1)
        if stop.is_set() and server.done() and not server.cancelled() and server.exception():
            log.debug("the server ended with %r", server.exception())


async def _until_stopped(server: asyncio.Task[None], stop: asyncio.Event) -> None:
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([server, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    if not stop.is_set():
        await server
        raise RuntimeError("the server ended by itself")


def _config(idle_s: float) -> Config:
    config = Config()
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.keep_alive_timeout = idle_s
    # Hypercorn's own count leaves streams without an end once it is reached.
    config.keep_alive_max_requests = 10**9
    config.graceful_timeout = _GRACEFUL_S
    config.backlog = _BACKLOG
    config.h2_max_header_list_size = _HEADER_LIST_BYTES
    return config
