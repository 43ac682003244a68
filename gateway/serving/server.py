"""Starts everything, serves until a signal comes, and ends everything.

SIGTERM: not ready but accepting for `drain_notice_s`, then new turns are refused while running
ones finish or, at `drain_s`, end in their dialect's own terminal record. SIGINT is the same
without the notice. A second signal ends the wait. Exit codes: 0 after a signal, 1 for what could
not start, 2 for a configuration that cannot serve.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from socket import socket
from ssl import SSLContext
from typing import Final

import structlog

from gateway import wiring
from gateway.demo import Demo, DemoError
from gateway.errors import GatewayError
from gateway.serving.connections import Connections
from gateway.serving.listeners import ListenError, address, listen, serve
from gateway.serving.tls import CertificateError, server_context
from gateway.settings import Settings, has_credentials
from gateway.telemetry import logs

_log: Final = structlog.get_logger("gateway.serving")
_DEMO_FILE: Final = Path("var/demo.json")


def run(settings: Settings, *, demo: bool) -> int:
    """Serves until SIGINT or SIGTERM; the process's exit code."""
    try:
        shown = Demo.load(_DEMO_FILE) if demo else None
    except DemoError as error:
        _say(f"gateway: {error}")
        return 1
    if shown is not None:
        settings = shown.applied_to(settings)
    if not has_credentials(settings) and not settings.server.allow_no_keys:
        _say(
            "gateway: no tenant has a key or a session secret, so nobody could ask anything.\n"
            "Make one with `gateway keys new`, or set server.allow_no_keys to start all the same."
        )
        return 2
    logs.configure()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_Server(settings, shown).run())
    except (ListenError, CertificateError, DemoError, GatewayError, wiring.StartError) as error:
        _say(f"gateway: {error}")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        logs.shutdown()


class _Server:
    """One run of the gateway."""

    def __init__(self, settings: Settings, demo: Demo | None) -> None:
        self._settings = settings
        self._demo = demo
        self._signals = _Signals()
        self._stop = asyncio.Event()
        self._connections = Connections()
        # Later than the turn's own clock for a client that takes nothing.
        self._unread_s = 2 * settings.limits.send_s

    async def run(self) -> int:
        self._signals.install()
        async with AsyncExitStack() as stack:
            public = [self._listen(stack, bind) for bind in self._settings.server.bind]
            secure = [self._listen(stack, bind) for bind in self._settings.server.tls_bind]
            admin = self._listen(stack, self._settings.admin.bind)
            built = await self._unless_signalled(
                stack.enter_async_context(wiring.build(self._settings, progress=_say))
            )
            if built is None:
                return 0
            for app, sockets, behind_tls, connections in (
                (built.app, public, secure, self._connections),
                (built.admin, [admin], [], Connections()),
            ):
                await stack.enter_async_context(
                    self._serving(app, sockets, behind_tls, connections)
                )
            plain, tls = ([address(sock) for sock in socks] for socks in (public, secure))
            _log.info("listening", public=plain, tls=tls, admin=address(admin))
            if self._demo is not None:
                url = f"http://{plain[0]}" if plain else f"https://{tls[0]}"
                await self._demo.show(url, built.store, built.tokens)
            await self._signals.first.wait()
            await self._drain(built)
        _log.info("stopped")
        return 0

    def _listen(self, stack: AsyncExitStack, bind: str) -> socket:
        sock = listen(bind, unread_s=self._unread_s)
        stack.callback(sock.close)
        return sock

    def _tls(self) -> SSLContext:
        server = self._settings.server
        return server_context(server.certificate, server.private_key)

    async def _unless_signalled(
        self, starting: Coroutine[None, None, wiring.Built]
    ) -> wiring.Built | None:
        """What was started, or None if a signal came first; then the start was undone."""
        start = asyncio.create_task(starting)
        signalled = asyncio.create_task(self._signals.first.wait())
        try:
            await asyncio.wait([start, signalled], return_when=asyncio.FIRST_COMPLETED)
            if start.done():
                return start.result()
            start.cancel()
            await asyncio.wait([start])
            return None
        finally:
            signalled.cancel()

    @asynccontextmanager
    async def _serving(
        self,
        app: wiring.Asgi,
        sockets: list[socket],
        secure: list[socket],
        connections: Connections,
    ) -> AsyncIterator[None]:
        """Hypercorn in a task of its own; one that ends by itself ends the gateway."""
        idle_s = self._settings.limits.connection_idle_s
        tls = self._tls() if secure else None
        task = asyncio.create_task(
            serve(
                app,
                sockets,
                self._stop,
                idle_s=idle_s,
                unread_s=self._unread_s,
                connections=connections,
                secure=secure,
                tls=tls,
            )
        )
        task.add_done_callback(lambda _: self._signals.first.set())
        try:
            yield
        finally:
            self._stop.set()
            await task

    async def _drain(self, built: wiring.Built) -> None:
        server = self._settings.server
        built.turns.notice()
        built.metrics.draining(on=True)
        _log.info("draining", turns=built.turns.count)
        if not self._signals.interrupted:
            await self._signals.wait_again(server.drain_notice_s)
        self._connections.drain()
        drain = asyncio.create_task(built.turns.drain(server.drain_s))
        again = asyncio.create_task(self._signals.again.wait())
        done, _ = await asyncio.wait([drain, again], return_when=asyncio.FIRST_COMPLETED)
        if drain not in done:
            drain.cancel()
            await built.turns.drain(0)
        again.cancel()


class _Signals:
    """The first SIGINT or SIGTERM, and the one after it."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.again = asyncio.Event()
        self.interrupted = False

    def install(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._came, True)
        loop.add_signal_handler(signal.SIGTERM, self._came, False)

    async def wait_again(self, within_s: float) -> None:
        """Waits for the time, or for another signal."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.again.wait()

    def _came(self, interrupt: bool) -> None:
        if self.first.is_set():
            self.again.set()
        self.interrupted = self.interrupted or interrupt
        self.first.set()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None  # asyncio's own loop serves as well, somewhat slower
    return uvloop.new_event_loop


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
