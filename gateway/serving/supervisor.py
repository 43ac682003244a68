"""The supervisor: binds the sockets, keeps the workers and the embedded model, answers operators.

It serves no client. SIGTERM: not ready but accepting for `drain_notice_s`, then new turns are
refused while running ones finish or, at `drain_s`, end in their dialect's own terminal record.
SIGINT is the same without the notice. A second signal ends the wait. SIGHUP, or a change of the
configuration's files: the new configuration is tried, and the workers are replaced one by one.
"""

import asyncio
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from socket import socket
from typing import Final

import structlog

from gateway.demo import Demo
from gateway.serving.child import Patience
from gateway.serving.listeners import address, listen, serving
from gateway.serving.orders import MakeOrders, Orders, first, unread_s
from gateway.serving.orphans import bury
from gateway.serving.reload import POLL_S, Source, Watch, changes
from gateway.serving.workers import Workers, WorkersError
from gateway.settings import ConfigError, Settings, credential_count, uses_embedded
from gateway.telemetry import logs
from gateway.telemetry.supervision import SupervisorMetrics
from gateway.telemetry.totals import Totals
from gateway.upstreams.embedded import KeptModel, StartError

_log: Final = structlog.get_logger("gateway.serving")
# Bound once, when the gateway starts.
_BOUND: Final = ("server.bind", "server.tls_bind", "admin.bind")

_PROBLEMS: Final = 10  # in a log line, which has its bounds


class ReloadError(Exception):
    """A changed configuration cannot be put in force; the message says why."""


class Supervisor:
    """One run of the gateway."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        demo: Demo | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._demo = demo
        self._signals = _Signals()
        self._metrics = SupervisorMetrics()
        self._totals = Totals(self._metrics.unreadable)
        self._totals.add(self._metrics.board)
        self._sockets: dict[str, list[socket]] = {"plain": [], "tls": []}
        self._workers = Workers(self._metrics, self._totals, patience)
        self._model = KeptModel()
        self._model_url = ""
        self._began = self._draining = False

    async def run(self) -> int:
        """Serves until a signal comes; the exit code.

        Raises `ListenError`, `StartError` and `WorkersError` for what cannot start.
        """
        self._signals.install()
        async with AsyncExitStack() as stack:
            server = self._settings.server
            self._sockets["plain"] = self._listen(stack, "server.bind", server.bind)
            self._sockets["tls"] = self._listen(stack, "server.tls_bind", server.tls_bind)
            (admin,) = self._listen(stack, "admin.bind", [self._settings.admin.bind])
            stack.push_async_callback(self._model.stop)
            await stack.enter_async_context(_beside(self._workers.keep()))
            stack.push_async_callback(self._workers.stop, 0, 0)
            # First of all: they import what they need while this process does the same.
            self._workers.prepare(server.workers, self._descriptors())
            await stack.enter_async_context(self._answering(admin))
            if not await self._unless_signalled(self._begin()):
                return 0
            self._tell(admin)
            async with _beside(self._reload_when_told()), _beside(self._bury_orphans()):
                why = await self._until_over()
            await self._drain()
        if why is not None:
            raise WorkersError(why)
        _log.info("stopped")
        return 0 if self._workers.clean else 1

    def _listen(self, stack: AsyncExitStack, setting: str, binds: Iterable[str]) -> list[socket]:
        limit_s = unread_s(self._settings.limits)
        return [
            stack.enter_context(listen(bind, unread_s=limit_s, setting=setting)) for bind in binds
        ]

    def _descriptors(self) -> tuple[int, ...]:
        return tuple(sock.fileno() for sockets in self._sockets.values() for sock in sockets)

    @asynccontextmanager
    async def _answering(self, admin: socket) -> AsyncIterator[None]:
        """Operators are answered in the block."""
        # Not before the workers' processes have been started.
        from prometheus_client import PlatformCollector, disable_created_metrics

        from gateway.telemetry.pages import Pages
        from gateway.telemetry.processes import Processes
        from gateway.telemetry.supervision import WorkerGauges
        from gateway.web.admin import AdminApp
        from gateway.web.operators import Operators

        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        pages = Pages(
            self._totals,
            WorkerGauges(lambda: self._workers.facts),
            Processes(self._children),
            PlatformCollector(registry=None),
        )
        operators = Operators(pages, self._readiness, self._details)
        app = AdminApp(operators, lambda: str(uuid.uuid4()))
        idle_s = self._settings.limits.connection_idle_s
        try:
            async with serving(app, [admin], idle_s=idle_s):
                yield
        finally:
            pages.close()

    def _children(self) -> list[int]:
        pids = [worker.process for worker in self._workers.facts]
        return pids if self._model.pid is None else [*pids, self._model.pid]

    def _readiness(self) -> dict[str, bool]:
        return {
            "configuration": True,  # it was good, or nothing would be here
            "workers": self._began and self._workers.serving > 0,
            "accepting": not self._draining,
        }

    def _details(self) -> list[str]:
        return [
            f"worker {it.slot}: {it.state}, process {it.process}, lag {it.lag_s:.2f} s"
            for it in self._workers.facts
        ]

    async def _begin(self) -> None:
        if uses_embedded(self._settings):
            self._model_url = await self._model.start(say)
        settings = self._settings
        await self._workers.begin(self._orders(settings), settings.server.drain_s)
        self._metrics.in_force(settings.server.workers, credential_count(settings), time.time())
        self._began = True

    def _orders(self, settings: Settings) -> MakeOrders:
        plain, tls = (
            tuple(sock.fileno() for sock in self._sockets[kind]) for kind in ("plain", "tls")
        )
        return lambda slot: Orders(slot, settings, self._demo, self._model_url, plain, tls)

    def _tell(self, admin: socket) -> None:
        plain, tls = ([address(it) for it in self._sockets[kind]] for kind in ("plain", "tls"))
        workers = self._settings.server.workers
        _log.info("listening", public=plain, tls=tls, admin=address(admin), workers=workers)
        if self._demo is not None:
            # Log lines have a thread of their own, which must not write into these.
            logs.flush()
            self._demo.show(f"http://{plain[0]}" if plain else f"https://{tls[0]}")

    async def _unless_signalled(self, starting: Coroutine[None, None, None]) -> bool:
        """Whether it was done before a signal came; else it was broken off."""
        start = asyncio.create_task(starting)
        await first(start, self._signals.stop)
        if start.done():
            start.result()
            return True
        start.cancel()
        await asyncio.wait([start])
        return False

    async def _until_over(self) -> str | None:
        """Waits for a signal (None), or for what makes it impossible to go on."""
        await first(self._signals.stop, self._workers.failed)
        return self._workers.failed.result() if self._workers.failed.done() else None

    async def _drain(self) -> None:
        server = self._settings.server
        self._draining = True
        self._metrics.draining()
        noticed = self._signals.stop.done() and not self._signals.interrupted
        _log.info("stopping")
        ended = asyncio.create_task(
            self._workers.stop(server.drain_notice_s if noticed else 0, server.drain_s)
        )
        if not await first(ended, self._signals.again):
            self._workers.hurry()
            await ended

    async def _bury_orphans(self) -> None:
        while os.getpid() == 1:
            bury(self._children())
            await asyncio.sleep(POLL_S)

    async def _reload_when_told(self) -> None:
        """Takes on changed configurations, one after the other."""
        hangup = self._signals.hangup
        files, pair = Watch(self._source.file), self._pair()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await hangup.wait()
            told = hangup.is_set()
            hangup.clear()
            renewed = pair.changed()
            if not (files.changed() or renewed or told):
                continue
            before = self._settings
            try:
                await self._reload(anyway=told or renewed)
            except Exception:  # noqa: BLE001 - a fault of the gateway's own, and not the last reload
                _log.exception("reload_fault", next="the former one stays")
                self._metrics.reloaded("failed")
            if self._settings is not before:
                pair = self._pair()

    def _pair(self) -> Watch:
        server = self._settings.server
        return Watch(server.certificate, server.private_key)

    async def _reload(self, *, anyway: bool) -> None:
        """Tries the configuration as it is now; without a change only if `anyway`."""
        try:
            settings = await self._read()
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
            _log.error(
                "configuration_invalid",
                problems=problems[:_PROBLEMS],
                count=len(problems),
                next="the former one stays",
            )
            self._metrics.reloaded("invalid")
            return
        except ReloadError as error:
            _log.error("configuration_refused", why=str(error), next="the former one stays")
            self._metrics.reloaded("invalid")
            return
        changed = changes(self._settings, settings)
        if not changed and not anyway:
            _log.info("configuration_unchanged")
            self._metrics.unchanged()
            return
        _log.info("reloading", changed=changed)
        await self._put_in_force(settings)

    async def _read(self) -> Settings:
        """The configuration as it is now. Raises `ConfigError` and `ReloadError`."""
        loaded = await asyncio.to_thread(self._source.load)
        for text in loaded.warnings:
            _log.warning("configuration_warning", detail=text)
        settings = self._demo.applied_to(loaded.settings) if self._demo else loaded.settings
        for name in (name for name in changes(self._settings, settings) if name in _BOUND):
            raise ReloadError(f"{name} cannot change while the gateway runs; restart it")
        if not credential_count(settings) and not settings.server.allow_no_keys:
            raise ReloadError("no tenant has a key or a session secret")
        return settings

    async def _put_in_force(self, settings: Settings) -> None:
        server = settings.server
        orders = self._orders(settings)
        try:
            if uses_embedded(settings) and not self._model_url:
                self._model_url = await self._model.start(say)
            await self._workers.replace(orders, server.drain_s, server.workers)
        except (StartError, WorkersError) as error:
            _log.error("reload_failed", why=str(error), next="the former one stays")
            self._metrics.reloaded("failed")
        else:
            self._metrics.reloaded("good")
            self._metrics.in_force(server.workers, credential_count(settings), time.time())
            _log.info("reloaded", workers=server.workers)
        finally:
            if self._workers.orders is orders:
                self._settings = settings


class _Signals:
    """What SIGINT, SIGTERM and SIGHUP ask for."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.stop: asyncio.Future[None] = loop.create_future()
        self.again: asyncio.Future[None] = loop.create_future()
        self.hangup = asyncio.Event()
        self.interrupted = False

    def install(self) -> None:
        """Listens to them."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._came, True)
        loop.add_signal_handler(signal.SIGTERM, self._came, False)
        loop.add_signal_handler(signal.SIGHUP, self.hangup.set)

    def _came(self, interrupt: bool) -> None:
        asked = self.again if self.stop.done() else self.stop
        self.interrupted = self.interrupted or interrupt
        if not asked.done():
            asked.set_result(None)


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs beside the block and is cancelled at its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def say(text: str) -> None:
    """A line for whoever started the gateway."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
