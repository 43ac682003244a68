"""The cheapest HTTP/1.1 that can stand on both sides of a gateway under load.

Both ends are byte counters rather than parsers, so that the machine's time goes to the gateway:
the upstream answers every POST with the same bytes, the client looks for the end of an answer in
the two framings that the gateway uses.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, cast

_LENGTH: Final = b"content-length:"
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Answers each request of a connection with `parts`, `wait_s` after the last byte of it, and
    each part `gap_s` after the one before.

    `calls` counts the requests of all connections.
    """

    calls = 0

    def __init__(self, parts: Sequence[bytes], wait_s: float, gap_s: float) -> None:
        self._parts = parts
        self._wait_s = wait_s
        self._gap_s = gap_s
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape only

    def data_received(self, data: bytes) -> None:
        """Answers once the body that the head declares is there."""
        self._seen += data
        while (size := _request_size(self._seen)) is not None:
            self._seen = self._seen[size:]
            Upstream.calls += 1
            if self._wait_s:
                asyncio.get_running_loop().call_later(self._wait_s, self._reply, 0)
            else:
                self._reply(0)

    def _reply(self, number: int) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._transport.write(self._parts[number])
        if number + 1 < len(self._parts):
            asyncio.get_running_loop().call_later(self._gap_s, self._reply, number + 1)


def _request_size(seen: bytes) -> int | None:
    """The bytes of the first request, if all of it is there."""
    head, found, _ = seen.partition(b"\r\n\r\n")
    if not found:
        return None
    size = len(head) + 4 + _declared(head)
    return size if len(seen) >= size else None


def _declared(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(_LENGTH)
    return int(lower[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


class Ended(NamedTuple):
    """One answer: its status (0 if the connection broke), its bytes, and the seconds it took."""

    status: int
    body: bytes
    seconds: float


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._seen = b""
        self._began = 0.0
        self._done: asyncio.Future[Ended] | None = None
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape only

    def data_received(self, data: bytes) -> None:
        """Looks whether the answer has ended."""
        self._seen += data
        if self._is_whole():
            self._end(int(self._seen[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        """An answer that has not ended is broken off."""
        self.open = False
        self._end(0)

    async def ask(self, request: bytes) -> Ended:
        """Sends a request and waits for the end of its answer."""
        assert self._transport is not None
        self._seen = b""
        self._began = self._loop.time()
        self._done = self._loop.create_future()
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _is_whole(self) -> bool:
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if not found:
            return False
        if _LENGTH in head.lower():
            return len(body) >= _declared(head)
        return body.endswith(_LAST_CHUNK)

    def _end(self, status: int) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(Ended(status, self._seen, self._loop.time() - self._began))


class Crowd:
    """Clients of one address; a connection that is free is used again."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._free: list[Connection] = []

    async def ask(self, request: bytes) -> Ended:
        """One request and its answer; the time counts from here, connecting included."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        connection = self._take()
        try:
            if connection is None:
                _, connection = await loop.create_connection(Connection, *self._address)
            ended = await connection.ask(request)
        except OSError:
            return Ended(0, b"", loop.time() - began)
        if connection.open and b"connection: close" not in ended.body[:1024].lower():
            self._free.append(connection)
        else:
            connection.close()
        return ended._replace(seconds=loop.time() - began)

    def _take(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return connection
        return None

    def close(self) -> None:
        """Ends every connection that is free."""
        for connection in self._free:
            connection.close()


async def serve(
    parts: Sequence[bytes], *, wait_s: float = 0.0, gap_s: float = 0.0
) -> tuple[asyncio.Server, int]:
    """An upstream on a free port of loopback, and the port; see `Upstream`."""
    loop = asyncio.get_running_loop()

    def made() -> Upstream:
        return Upstream(parts, wait_s, gap_s)

    server = await loop.create_server(made, "127.0.0.1", 0, backlog=2048)
    return server, server.sockets[0].getsockname()[1]
