"""One TCP or TLS connection under Hypercorn's protocol classes.

Hypercorn's own keeps a closed connection, and its descriptor, until the idle clock has run out,
and cannot be held while a client sends faster than it is served.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import Final

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.typing import AppWrapper, LifespanState, TaskGroup

_READ_BYTES: Final = 65_536


class Connection(TCPServer):
    """A connection that is read until it ends, unless its protocol holds it.

    One without a request is closed after `keep_alive_timeout` seconds.
    """

    def __init__(
        self,
        app: AppWrapper,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(app, loop, config, context, state, reader, writer)
        self.idle_task = _IdleClock(self)  # type: ignore[assignment]  # has what Hypercorn uses
        self._idle_timer: asyncio.TimerHandle | None = None
        self._may_read = asyncio.Event()
        self._may_read.set()

    def hold(self) -> None:
        """Reads no more until `go_on`: the client is ahead of what is being served."""
        self._may_read.clear()

    def go_on(self) -> None:
        """Reads again."""
        self._may_read.set()

    def rest(self, *, on: bool) -> None:
        """Starts the idle clock anew, or stops it."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if on:
            seconds = self.config.keep_alive_timeout
            self._idle_timer = self.loop.call_later(seconds, self.writer.close)

    async def _read_data(self) -> None:
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(_READ_BYTES)
            except OSError:
                break
            if data:
                await self.protocol.handle(RawData(data))
                await self._may_read.wait()
        self.rest(on=False)
        await self.protocol.handle(Closed())


def connection_of(send: Callable[[Event], Awaitable[None]]) -> Connection:
    """The connection whose method `send` is; Hypercorn gives its protocol classes no more."""
    if isinstance(send, MethodType) and isinstance(send.__self__, Connection):
        return send.__self__
    raise TypeError("the protocol has to be given a connection's method")


class _IdleClock:
    """The connection's idle clock as Hypercorn knows it.

    Hypercorn's own is a task, which keeps a closed connection open until it has run out.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def restart(self, _: TaskGroup, __: Callable[[], Awaitable[None]]) -> None:
        """Starts it anew."""
        self._connection.rest(on=True)

    async def stop(self) -> None:
        """Stops it."""
        self._connection.rest(on=False)


class Streams(asyncio.StreamReaderProtocol):
    """asyncio's streams, which besides tell a connection that is held of its loss."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: Callable[["Streams", asyncio.StreamWriter], None],
    ) -> None:
        self.on_lost: Callable[[], None] | None = None
        self.reader = asyncio.StreamReader(_READ_BYTES, loop)
        super().__init__(self.reader, lambda _, writer: connected(self, writer), loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
