"""Processes that cannot start, or have too little of something: descriptors, memory, an outlet."""

import asyncio
import json
import resource
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.attack import processes
from tests.attack.case import case, expect
from tests.attack.good import GoodClient, warmed
from tests.attack.hooks import BLOCKS
from tests.attack.leaving import deaf_client
from tests.attack.site import (
    LATE_S,
    Site,
    completes,
    in_time,
    open_site,
    site_config,
    status_of,
)
from tests.e2e.process import clean_environment
from tests.e2e.wire import Request

_MEBIBYTE = 1 << 20


@case("PR-08", "starts that cannot serve: store, file, port, certificate", alone=True)
async def bad_starts(site: Site, full: bool) -> list[str]:
    settings = site_config("http://127.0.0.1:9")
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    pem = str(site.directory / "no.pem")
    variants: dict[str, dict[str, object]] = {
        "store": {"store": {"url": "sqlite:/dev/null/gateway.db"}},
        "unknown member": {"severs": {}},
        "port in use": {"server": {"bind": [f"127.0.0.1:{port}"]}},
        "certificate": {
            "server": {
                "bind": ["127.0.0.1:0"],
                "tls_bind": ["127.0.0.1:0"],
                "certificate": pem,
                "private_key": pem,
            }
        },
    }
    attempts = [
        _bad_start(site.directory, name, settings | change) for name, change in variants.items()
    ]
    found = await asyncio.gather(*attempts)
    taken.close()
    return [wrong for each in found for wrong in each]


async def _bad_start(directory: Path, name: str, settings: dict[str, object]) -> list[str]:
    file = directory / f"{name.replace(' ', '-')}.yaml"
    file.write_text(json.dumps(settings))
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "serve", "--config", str(file)),
        cwd=directory,
        env=clean_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 5 + LATE_S)
    except TimeoutError:
        return [f"{name}: it is still there after {time.monotonic() - began:.0f} s"]
    finally:
        processes.end_session(process.pid)
    wrong: list[str] = []
    text = output.decode(errors="replace")
    expect(wrong, process.returncode not in (0, None), f"{name}: exit status {process.returncode}")
    told = bool(text.strip()) and "Traceback" not in text and text.count("\n") <= 4
    expect(wrong, told, f"{name}: said {text[:300]!r}")
    expect(wrong, "listening" not in text, f"{name}: it listened")
    return wrong


@case("PR-15", "256 descriptors and 300 clients", alone=True)
async def few_descriptors(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    limits = {"connection_idle_s": 30}
    async with open_site(site.kind, limits=limits) as own, AsyncExitStack() as stack:
        base = await warmed(own)
        for pid in processes.session_of(own.process.pid):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (256, 256))
        crowd = [await _held_connection(own, stack) for _ in range(300)]
        before = own.cpu_seconds()
        await asyncio.sleep(2)
        spent = own.cpu_seconds() - before
        expect(wrong, spent < 1.0, f"{spent:.1f} of 2 s of a core are spent while it is full")
        lines = len(own.gateway.noise) + sum(
            entry.get("level") in ("error", "warning") for entry in own.gateway.records
        )
        expect(wrong, lines <= 10, f"{lines} lines are logged: {own.gateway.noise[:1]}")
        for writer in crowd:
            writer.close()
        await asyncio.sleep(1.5)
        after = GoodClient(own, "after")
        await asyncio.sleep(0.5)
        wrong += await after.stop()
        wrong += await own.leaks(base)
    return wrong


async def _held_connection(own: Site, stack: AsyncExitStack) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(*own.address)
    stack.callback(writer.close)
    return writer


@case("PR-16", "300 MB, readers that never read and a model that never ends", alone=True)
async def little_memory(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    text = "without end"
    async with open_site(site.kind) as own, AsyncExitStack() as stack:
        base = await warmed(own)
        own.model.pours(text, 1000)
        good = GoodClient(own)
        for number in range(20):
            stack.callback(deaf_client(own, text, f"deaf-{number}").close)
            wire = await stack.enter_async_context(await own.wire())
            await wire.ask(own.ask(text, session=f"reader-{number}"))
        most = 0
        end = time.monotonic() + (15 if full else 4)
        while time.monotonic() < end:
            most = max(most, own.resident_bytes())
            await asyncio.sleep(0.1)
        expect(wrong, most < 300 * _MEBIBYTE, f"{most / _MEBIBYTE:.0f} MiB")
        left = await own.model.is_left(text, LATE_S)
        expect(wrong, left, "the model was read without end")
        wrong += await good.stop()
        await stack.aclose()
        wrong += await own.leaks(base)
    return wrong


@case("PR-17", "standard output that nobody reads", alone=True)
async def blocked_output(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with open_site(site.kind) as own:
        with own.gateway.unread():
            client = GoodClient(own)
            # The pipe holds some ten lines and the process 4096 more.
            wrong += await _logged_requests(own, 6000 if full else 500)
            wrong += await client.stop()
            if full:
                dropped = await own.gateway.total("chatgw_log_lines_dropped_total")
                expect(wrong, dropped > 0, "no dropped line was counted")
            own.process.send(signal.SIGTERM)
            status = await own.gateway.exited()
            expect(wrong, status == 0, f"exit status {status}")
    return wrong


async def _logged_requests(own: Site, times: int) -> list[str]:
    """Requests that each leave a line in the log."""
    async with await own.wire() as wire:
        for _ in range(times // 50):
            lanes = [await wire.ask(Request("GET", "/health")) for _ in range(50)]
            for lane in lanes:
                if await status_of(lane) != 200:
                    return [f"a request was not served: {lane.fate}"]
    return []


@case("PR-19", "an event loop that is held up for two seconds", alone=True)
async def held_up(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with open_site(site.kind) as own:
        base = await warmed(own)
        gate = own.model.holds("beside")
        async with await own.wire() as wire:
            beside = await wire.ask(own.ask("beside"))
            await beside.part()
            blocking = await wire.ask(own.ask("block", session=BLOCKS))
            ready = await _readiness(own, 2.0)
            expect(wrong, 503 in ready, f"/readyz meanwhile: {ready}")
            gate.set()
            expect(wrong, await in_time(completes(beside)), "the stream beside was cut")
            good = await in_time(completes(blocking, "You said: block"))
            expect(wrong, good, "the turn that held the loop up was cut")
        lag = await own.gateway.total("chatgw_worker_lag_seconds")
        expect(wrong, lag > 1, f"a lag of {lag:.2f} s was measured")
        outcomes = await own.gateway.by("chatgw_turns_total", "outcome")
        expect(wrong, set(+outcomes) <= {"ok"}, f"outcomes: {dict(+outcomes)}")
        after = await _readiness(own, 0.3)
        expect(wrong, after[-1:] == [200], f"/readyz afterwards: {after}")
        wrong += await own.leaks(base)
    return wrong


async def _readiness(own: Site, seconds: float) -> list[int]:
    """What the admin listener says of it, again and again for that time."""
    said: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = await own.gateway.ask(own.gateway.admin, "/readyz")
        if said[-1:] != [answer.status]:
            said.append(answer.status)
        await asyncio.sleep(0.05)
    return said
