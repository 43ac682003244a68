"""Clients that read slowly, oddly or not at all."""

import asyncio
import time
from contextlib import AsyncExitStack

from tests.attack.case import case, expect
from tests.attack.frames import INITIAL_WINDOW_SIZE, settings, window_update
from tests.attack.leaving import deaf_client
from tests.attack.site import LATE_S, SEND_S, Site, open_site, says
from tests.model_streams import openai_stream
from tests.upstream import stream

_MEBIBYTE = 1 << 20


@case("CL-08", "twenty clients that never read fifty megabytes", fails_on_stock=True)
async def never_read(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    before = site.resident_bytes()
    limit = 20 * 3 * _MEBIBYTE // 2
    text = "never read"
    site.model.pours(text, 50)
    async with AsyncExitStack() as stack:
        for number in range(10):
            stack.callback(deaf_client(site, text, f"deaf-{number}").close)
            wire = await stack.enter_async_context(await site.wire(window=0))
            await wire.ask(site.ask(text, session=f"deaf-http2-{number}"))
        await site.model.called(text, 20)
        end = time.monotonic() + SEND_S + LATE_S
        grown = 0
        while time.monotonic() < end and site.model.running > 1 and grown <= limit:
            grown = max(grown, site.resident_bytes() - before)
            await asyncio.sleep(0.1)
        expect(wrong, grown <= limit, f"{grown / _MEBIBYTE:.0f} MiB and growing for 20 clients")
        left = await site.model.is_left(text, 0.5)
        expect(wrong, left, "turns went on for clients that never read")
    return wrong


@case("CL-09", "a reader of a kilobyte at a time", waits=True)
async def slow_reader(site: Site, full: bool) -> list[str]:
    if not full:
        return await _read_slowly(site, 0.1)
    async with open_site(site.kind, limits={"send_s": 30}) as patient:
        return await _read_slowly(patient, 1.0)


async def _read_slowly(site: Site, pause_s: float) -> list[str]:
    wrong: list[str] = []
    said = "".join(f"word {number} " for number in range(1100)).strip()
    site.model.says("slowly", stream(*openai_stream([said])))
    async with await site.wire(window=1024) as wire:
        lane = await wire.ask(site.ask("slowly"))
        await lane.head()
        for _ in range(60):
            await asyncio.sleep(pause_s)
            if lane.answer.ended or wire.closed.is_set():
                break
            await wire.write(window_update(0, 1024) + window_update(lane.number, 1024))
        await lane.ends()
        expect(wrong, says(lane.answer, said), f"the answer did not come whole: {lane.fate}")
    return wrong


@case("CL-23", "windows that shrink below nothing, then grow a byte at a time")
async def windows(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    said = "".join(f"word {number} " for number in range(800)).strip()
    site.model.says("windows", stream(*openai_stream([said])))
    async with await site.wire(window=1000) as wire:
        lane = await wire.ask(site.ask("windows"))
        await lane.head()
        await asyncio.sleep(0.1)
        await wire.write(settings({INITIAL_WINDOW_SIZE: 10}))  # 990 below nothing
        quiet = await site.cores(1.0)
        await wire.write(window_update(lane.number, 990))
        stalled = await site.cores(1.0)
        expect(wrong, stalled - quiet < 0.4, f"{stalled - quiet:.2f} of a core while waiting")
        for _ in range(40):
            await wire.write(window_update(lane.number, 1))
            await asyncio.sleep(0.005)
        await wire.write(settings({INITIAL_WINDOW_SIZE: 60_000}))
        await lane.ends()
        expect(wrong, says(lane.answer, said), f"the answer did not come whole: {lane.fate}")
    return wrong
