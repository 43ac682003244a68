"""Processes that stop, are stopped, or are replaced, while they serve."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from tests.attack import processes
from tests.attack.case import case, expect
from tests.attack.good import GoodClient, warmed
from tests.attack.leaving import deaf_client
from tests.attack.site import LATE_S, Site, completes, in_time, open_site
from tests.e2e.http1 import H1
from tests.e2e.routes import WIDGET
from tests.e2e.tls import client_context
from tests.e2e.wire import Exchange, Request, whole
from tests.e2e.world import read
from tests.model_streams import openai_chunk, openai_stream
from tests.upstream import Sleep, stream

NOTICE_S = 3.0


@asynccontextmanager
async def two_workers(site: Site, *, drain_s: float, tls: bool = False) -> AsyncIterator[Site]:
    """A site of that kind with two workers and a store that both see."""
    server = {"workers": 2, "drain_notice_s": NOTICE_S, "drain_s": drain_s}
    async with open_site(site.kind, tls=tls, store="sqlite:gateway.db", server=server) as own:
        yield own


async def _until(holds: Callable[[], bool], within: float) -> bool:
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


async def _exit_status(site: Site, within: float) -> int | None:
    """The exit status; None if it did not come in time."""
    try:
        return await asyncio.wait_for(site.process.wait(), within)
    except TimeoutError:
        return None


async def _streams(site: Site, stack: AsyncExitStack, text: str, times: int) -> list[Exchange]:
    """Streams under way, each on a connection of its own, of both versions in turns."""
    exchanges: list[Exchange] = []
    for number in range(times):
        request = site.ask(text, session=f"{text}-{number}")
        if number % 2:
            wire = await stack.enter_async_context(await site.wire())
            exchanges.append(await wire.ask(request))
        else:
            connection = await site.h1()
            stack.push_async_callback(connection.close)
            exchanges.append(await connection.send(request))
        await exchanges[-1].part()
    return exchanges


async def _status(site: Site, request: Request) -> tuple[int, str]:
    """Status and `retry-after` of an answer on a new connection; 0 if there was none."""
    try:
        async with asyncio.timeout(3):
            connection = await site.h1()
            try:
                answer = await whole(await connection.send(request))
            finally:
                await connection.close()
    except (OSError, EOFError, TimeoutError):
        return 0, ""
    return answer.status, answer.header("retry-after")


@case("PR-01", "SIGTERM with eight streams over two workers", fails_on_stock=True, alone=True)
async def drain(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with two_workers(site, drain_s=15) as own, AsyncExitStack() as stack:
        soon, late = own.model.holds("soon"), own.model.holds("late")
        early_streams = await _streams(own, stack, "soon", 4)
        late_streams = await _streams(own, stack, "late", 4)
        for _ in range(5):
            stack.push_async_callback((await own.h1()).close)
            await stack.enter_async_context(await own.wire())
        began = time.monotonic()
        own.process.send(signal.SIGTERM)
        if own.kind == "ours":
            wrong += await _notice(own)
        await asyncio.sleep(max(0.0, began + NOTICE_S + 0.7 - time.monotonic()))
        status, retry = await _status(own, own.ask("too late"))
        expect(wrong, status == 503 and bool(retry), f"a new turn: {status}, retry {retry!r}")
        soon.set()
        whole_ones = [await in_time(completes(each)) for each in early_streams]
        expect(wrong, all(whole_ones), f"{whole_ones.count(False)} of 4 streams were cut")
        await asyncio.sleep(max(0.0, began + NOTICE_S + 3.5 - time.monotonic()))
        late.set()
        whole_ones = [await in_time(completes(each)) for each in late_streams]
        expect(wrong, all(whole_ones), f"{whole_ones.count(False)} of 4 longer streams were cut")
        status_code = await _exit_status(own, LATE_S)
        expect(wrong, status_code == 0, f"exit status {status_code}")
    return wrong


async def _notice(own: Site) -> list[str]:
    """Not ready at once, and still serving for the time of the notice."""
    wrong: list[str] = []
    ready = 200
    end = time.monotonic() + NOTICE_S * 0.8
    while ready == 200 and time.monotonic() < end:
        ready, _ = await _status(own, Request("GET", "/readyz"))
    expect(wrong, ready == 503, f"/readyz: {ready}")
    served, _ = await _status(own, own.ask("in the notice"))
    expect(wrong, served == 200, f"a turn within the notice: {served}")
    return wrong


@case("PR-02", "SIGTERM and streams that outlast the drain, readers that never read", alone=True)
async def forced_end(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with two_workers(site, drain_s=2, tls=True) as own, AsyncExitStack() as stack:
        own.model.holds("outlast")
        own.model.pours("deaf", 50)
        streams = await _streams(own, stack, "outlast", 4)
        stack.callback(deaf_client(own, "deaf", "deaf").close)
        assert own.process.tls is not None
        silent = await H1.connect(own.process.tls, client_context("http/1.1"))
        await silent.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await silent.reader.readuntil(b"\r\n\r\n")
        assert isinstance(silent.writer.transport, asyncio.Transport)
        silent.writer.transport.pause_reading()  # no close_notify will be answered
        stack.callback(silent.abort)
        own.process.send(signal.SIGTERM)
        for exchange in streams:
            wrong += await _ends_with_error(exchange)
        status = await _exit_status(own, NOTICE_S + 2 + 5 + LATE_S)
        expect(wrong, status == 0, f"exit status {status}")
        left = [each.name for each in own.directory.glob("gateway.db-*") if each.stat().st_size]
        expect(wrong, not left, f"the store was not closed: {left}")
    return wrong


async def _ends_with_error(exchange: Exchange) -> list[str]:
    """What is wrong with the end of a stream that the drain's end cuts short."""
    try:
        answer = await asyncio.wait_for(whole(exchange), 20)
        terminals = read(WIDGET, answer).terminals
    except (TimeoutError, OSError, EOFError) as error:
        return [f"a stream had no end: {error!r}"]
    good = answer.ended and terminals == ["error"]
    return [] if good else [f"a stream ended with {terminals}, proper end: {answer.ended}"]


@case("R30", "SIGTERM with two hundred streams that outlast the drain", alone=True)
async def two_hundred(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    drain_s = 20.0 if full else 4.0
    token = openai_chunk({"content": "word "})
    slow = [step for _ in range(600) for step in (token, Sleep(0.1))]
    async with two_workers(site, drain_s=drain_s) as own, AsyncExitStack() as stack:
        own.model.says("a minute", stream(*slow, *openai_stream(["end"])[1:]))
        lanes = []
        for number in range(200):
            if number % 50 == 0:
                wire = await stack.enter_async_context(await own.wire())
            lanes.append(await wire.ask(own.ask("a minute", session=f"minute-{number}")))
        for lane in lanes:
            await lane.head()
        began = time.monotonic()
        own.process.send(signal.SIGTERM)
        served, _ = await _status(own, own.ask("in the notice"))
        expect(wrong, served == 200, f"a new connection in the drain's notice: {served}")
        await asyncio.sleep(max(0.0, began + NOTICE_S + drain_s - 2 - time.monotonic()))
        cut = sum(lane.over for lane in lanes)
        expect(wrong, not cut, f"{cut} of 200 streams were cut before the drain's end")
        faults = [each for lane in lanes for each in await _ends_with_error(lane)]
        expect(wrong, not faults, f"{len(faults)} of 200 streams: {faults[:1]}")
        status = await _exit_status(own, LATE_S + 5)
        expect(wrong, status == 0, f"exit status {status}")
    return wrong


@case("PR-03", "SIGKILL of one of two workers under load", fails_on_stock=True, alone=True)
async def killed_worker(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with two_workers(site, drain_s=3) as own:
        base = await warmed(own)
        clients = [GoodClient(own, f"client-{number}") for number in range(4)]
        await asyncio.sleep(0.7)
        first = own.workers()
        expect(wrong, len(first) == 2, f"{len(first)} workers")
        began = time.monotonic()
        if first:
            os.kill(first[0], signal.SIGKILL)
        back = await _until(lambda: len(set(own.workers()) - {first[0]}) == 2, 2 + LATE_S)
        expect(wrong, back, f"no new worker after {time.monotonic() - began:.1f} s")
        await asyncio.sleep(0.5)
        for client in clients:
            await client.stop()
        # A client has one turn under way when the worker dies.
        lost = [client for client in clients if len(client.failures) > 1]
        expect(wrong, not lost, f"turns failed beside the killed worker: {_failures(lost)}")
        wrong += await _serves_on(own)
        wrong += await own.leaks(base)
        if full:
            wrong += await _crash_loop(own)
    return wrong


def _failures(clients: list[GoodClient]) -> str:
    return str([each for client in clients for each in client.failures][:3])


async def _serves_on(own: Site) -> list[str]:
    after = GoodClient(own, "after")
    await asyncio.sleep(0.5)
    return await after.stop()


async def _crash_loop(own: Site) -> list[str]:
    """Workers that die again and again within a minute end everything, and say so."""
    end = time.monotonic() + 50
    killed = 1
    while time.monotonic() < end and processes.session_of(own.process.pid):
        for pid in own.workers()[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        await asyncio.sleep(1.0)
    status = await _exit_status(own, LATE_S)
    return [] if status else [f"exit status {status} after {killed} deaths"]


@case("PR-04", "SIGKILL of the supervisor", alone=True)
async def killed_supervisor(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with two_workers(site, drain_s=4) as own, AsyncExitStack() as stack:
        gate = own.model.holds("orphan")
        streams = await _streams(own, stack, "orphan", 4)
        leader = own.process.pid
        own.process.send(signal.SIGKILL)
        await asyncio.sleep(0.5)
        gate.set()
        whole_ones = [await in_time(completes(each)) for each in streams]
        expect(wrong, all(whole_ones), f"{whole_ones.count(False)} of 4 streams were cut")
        gone = await _until(lambda: not processes.session_of(leader), NOTICE_S + 4 + LATE_S)
        expect(wrong, gone, f"orphans: {processes.session_of(leader)}")
        wrong += await _port_is_free(own)
    return wrong


async def _port_is_free(own: Site) -> list[str]:
    try:
        server = await asyncio.start_server(lambda *_: None, *own.address)
    except OSError as error:
        return [f"the port is still held: {error}"]
    server.close()
    return []


@case("PR-06", "SIGHUP under load", alone=True)
async def reload(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with two_workers(site, drain_s=10) as own, AsyncExitStack() as stack:
        base = await warmed(own)
        gate = own.model.holds("over a reload")
        streams = await _streams(own, stack, "over a reload", 4)
        clients = [GoodClient(own, f"client-{number}") for number in range(4)]
        await asyncio.sleep(0.5)
        for _ in range(2 if full else 1):
            old = set(own.workers())
            own.process.send(signal.SIGHUP)
            await asyncio.sleep(1.0)
            gate.set()

            def replaced(old: set[int] = old) -> bool:
                now = set(own.workers())
                return len(now) == 2 and not now & old

            new = await _until(replaced, 4 * LATE_S)
            expect(wrong, new, f"workers {sorted(old)} were not replaced: {own.workers()}")
        await asyncio.sleep(0.5)
        whole_ones = [await in_time(completes(each)) for each in streams]
        expect(wrong, all(whole_ones), f"{whole_ones.count(False)} of 4 streams were cut")
        for client in clients:
            wrong += await client.stop()
        await stack.aclose()
        wrong += await own.leaks(base)
    return wrong
