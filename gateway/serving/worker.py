"""One worker: `python -m gateway.serving.worker CHANNEL SCOREBOARD`, started by the supervisor.

It inherits three kinds of descriptors: a socket to the supervisor, over which it gets its orders
(`orders.py`); the memory of its scoreboard; the listening sockets, which it shares with the other
workers. It serves until it is told to go. If the supervisor dies, it accepts nothing more, lets
running turns finish within `drain_s` and ends.

Modules are imported before the orders are read, so that a worker is half started by the time that
they come.
"""

import asyncio
import codecs
import gc
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from socket import socket
from typing import Final

import structlog

from gateway import wiring
from gateway.demo import DemoError
from gateway.errors import GatewayError
from gateway.serving import descriptors
from gateway.serving.connections import CROWD, Connections
from gateway.serving.listeners import Server, serving
from gateway.serving.loop import loop_factory
from gateway.serving.orders import (
    BEAT_S,
    Orders,
    OrdersError,
    Word,
    first,
    heard,
    read_orders,
    spoken,
    unread_s,
)
from gateway.serving.tls import CertificateError, server_context
from gateway.telemetry import logs
from gateway.telemetry.catalogue import OTHER
from gateway.telemetry.scoreboard import Scoreboard

_log: Final = structlog.get_logger("gateway.serving")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What turns may still take that were told to end. With what the connections may take after that it
# is less than the supervisor's patience.
_SETTLE_S: Final = 1.5
_SCARCE_S: Final = 1.0
# Python opens their files when they are used first: too late when no descriptor is left.
_CODECS: Final = ("utf-16-le", "idna")


def main() -> int:
    """The worker's life; the exit code."""
    channel = _inherited(int(sys.argv[1]))
    board = Scoreboard(int(sys.argv[2]))
    os.close(int(sys.argv[2]))
    # A terminal sends its signals to the supervisor as well, and that one decides.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    for name in _CODECS:
        codecs.lookup(name)
    try:
        orders = read_orders(channel)
    except OrdersError as error:
        channel.sendall(spoken("failed", why=str(error)))
        return 1
    if orders is None:
        return 0
    logs.configure(worker=orders.slot)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_run(orders, board, channel))
    except Exception:  # noqa: BLE001 - it is logged, and the supervisor sees the exit code
        _log.critical("worker_fault", exc_info=True)
        return 1
    finally:
        logs.shutdown()


async def _run(orders: Orders, board: Scoreboard, channel: socket) -> int:
    reader, writer = await asyncio.open_connection(sock=channel)
    try:
        return await _Worker(orders, board, writer).run(reader)
    except (CertificateError, DemoError, GatewayError) as error:
        writer.write(spoken("failed", why=str(error)))
        return 1
    finally:
        writer.close()
        with suppress(OSError):  # a supervisor that has died reads nothing
            await writer.wait_closed()


class _Told:
    """What the supervisor has said about the end."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.stop: asyncio.Future[tuple[float, float]] = loop.create_future()
        self.retire: asyncio.Future[float] = loop.create_future()
        self.hurry: asyncio.Future[None] = loop.create_future()
        self.orphaned = False

    def take(self, word: Word) -> None:
        """Notes a word; none can be taken back."""
        match word:
            case {"word": "stop", "notice_s": float(notice_s), "drain_s": float(drain_s)}:
                self.set_stop(notice_s, drain_s)
            case {"word": "retire", "drain_s": float(drain_s)}:
                if not self.retire.done():
                    self.retire.set_result(drain_s)
            case {"word": "hurry"}:
                if not self.hurry.done():
                    self.hurry.set_result(None)

    def set_stop(self, notice_s: float, drain_s: float) -> None:
        """Notes the stop."""
        if not self.stop.done():
            self.stop.set_result((notice_s, drain_s))


class _Worker:
    """One run of a worker."""

    def __init__(self, orders: Orders, board: Scoreboard, channel: StreamWriter) -> None:
        self._orders = orders
        self._board = board
        self._channel = channel
        self._told = _Told()
        # Room for every turn that may run, and for what comes beside turns.
        turns = orders.settings.limits.turns_in_flight
        self._connections = Connections(max(CROWD, 2 * turns))
        self._scarce_at = 0.0

    async def run(self, words: StreamReader) -> int:
        """Serves until it is time to go; the exit code."""
        told = self._told
        hearing = asyncio.create_task(self._hear(words))
        try:
            async with AsyncExitStack() as stack:
                start = asyncio.create_task(self._start(stack))
                if not await first(start, told.stop, told.retire):
                    start.cancel()
                    await asyncio.wait([start])
                    return 0
                built, server = start.result()
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGTERM, self._say, "leaving")
                self._beat(built.metrics.beat)
                # What a start leaves behind stays: no collection has to look at it again.
                gc.freeze()
                self._say("listening")
                await self._serve(built, server)
            return 0
        finally:
            hearing.cancel()

    async def _start(self, stack: AsyncExitStack) -> tuple[wiring.Built, Server]:
        orders = self._orders
        tls = None
        if orders.tls:
            settings = orders.settings.server
            tls = server_context(settings.certificate, settings.private_key)
        built = await stack.enter_async_context(
            wiring.build(orders.settings, embedded_url=orders.embedded_url, board=self._board)
        )
        if orders.demo is not None:
            await orders.demo.prepare(built.store, built.tokens)
        limits = orders.settings.limits
        descriptors.provide(limits.turns_in_flight)
        server = await stack.enter_async_context(
            serving(
                built.app,
                [_inherited(number) for number in orders.plain],
                secure=[_inherited(number) for number in orders.tls],
                tls=tls,
                idle_s=limits.connection_idle_s,
                unread_s=unread_s(limits),
                connections=self._connections,
                refused=partial(built.metrics.refused, OTHER),
                gate=built.app.gate,
            )
        )
        return built, server

    async def _hear(self, words: StreamReader) -> None:
        while (word := await heard(words)) is not None:
            self._told.take(word)
        # The supervisor is gone, and nobody is left to say how long to wait.
        self._told.orphaned = True
        self._told.set_stop(0, self._orders.settings.server.drain_s)

    async def _serve(self, built: wiring.Built, server: Server) -> None:
        """Until every turn has ended, or was told to and has had its time."""
        told, turns = self._told, built.turns
        await first(told.retire, told.stop)
        if told.stop.done():
            notice_s, drain_s = told.stop.result()
            turns.notice()
            _log.info("draining", turns=turns.count)
            if told.orphaned:
                server.stop_accepting()
            await first(told.hurry, within_s=notice_s)
            self._connections.drain()
        else:
            _log.info("retiring", turns=turns.count)
            server.stop_accepting()
            leave_s = told.retire.result()
            self._connections.drain(quiet_s=leave_s / 2)
            emptied = asyncio.create_task(server.emptied())
            await first(emptied, told.stop, told.hurry, within_s=leave_s)
            self._connections.drain()
            emptied.cancel()
            drain_s = told.stop.result()[1] if told.stop.done() else 0
        drain = asyncio.create_task(turns.drain(drain_s, settle_s=_SETTLE_S))
        if not await first(drain, told.hurry):
            drain.cancel()
            await turns.drain(0, settle_s=_SETTLE_S)

    def _beat(self, beat: Callable[[], None]) -> None:
        """Gives a sign of life now and from time to time."""
        loop = asyncio.get_running_loop()
        beat()
        if loop.time() - self._scarce_at >= _SCARCE_S and descriptors.are_scarce():
            self._scarce_at = loop.time()
            _log.warning(
                "out_of_descriptors", next="raise the limit of open files, or server.workers"
            )
        loop.call_later(BEAT_S, self._beat, beat)

    def _say(self, word: str) -> None:
        self._channel.write(spoken(word))


def _inherited(descriptor: int) -> socket:
    found = socket(fileno=descriptor)
    found.set_inheritable(False)  # a tool's program must not hold the port
    return found


if __name__ == "__main__":
    code = main()
    # A thread that hangs in a write or in a store must not keep the process.
    os._exit(code)
