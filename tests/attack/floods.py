"""Frames in masses, and frames that cost more than they weigh (HTTP/2 only)."""

import asyncio
import struct
import time
from collections.abc import Callable, Iterator

from hpack import Encoder

from tests.attack.case import case, expect
from tests.attack.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    PING,
    PRIORITY,
    REFUSED_STREAM,
    SETTINGS,
    Wire,
    block,
    fields_of,
    frame,
    reset,
    window_update,
)
from tests.attack.site import Site, completes, in_time

_TEN = 10
# A hundred resets at once, ten more a second, and what else came in the same read.
_TAKEN = 150
_CLOSED_S = 4.0
_BOMB_S = 2.5
# A flood may cost so much processor time until it is cut off, the good client's turns included.
_CPU_S = 1.5


@case("CL-12", "rapid reset", fails_on_stock=True)
async def rapid_reset(site: Site, full: bool) -> list[str]:
    if not full:
        storms = [_reset_until_refused(site, 600) for _ in range(5)]
        return [wrong for each in await asyncio.gather(*storms) for wrong in each]
    wrong: list[str] = []
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for found in await asyncio.gather(*(_reset_until_refused(site, 2000) for _ in range(5))):
            wrong += found
        if wrong:
            break
    return wrong


async def _reset_until_refused(site: Site, most: int) -> list[str]:
    async with await site.wire() as wire:
        head = block(fields_of(site.ask("reset").carrying(b""), wire.address))
        sent = 0
        while sent < most and not wire.refused:
            pairs = []
            for _ in range(_TEN):
                number = wire.lane().number
                pairs += [frame(HEADERS, number, head, END_HEADERS | END_STREAM), reset(number)]
            if not await wire.write(b"".join(pairs)):
                break
            sent += _TEN
            await asyncio.sleep(0.005)
        await wire.ends(_CLOSED_S if sent < most else 0)
        if not wire.refused:
            return [f"{sent} streams were opened and reset, and the connection goes on"]
        if wire.goaway not in (None, ENHANCE_YOUR_CALM):
            return [f"GOAWAY {wire.goaway} after {sent} resets"]
        taken = (wire.last + 1) // 2
        return [] if taken <= _TAKEN else [f"{taken} resets were taken"]


@case("CL-13", "streams that the server has to reset (MadeYouReset)")
async def made_you_reset(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    provocations: dict[str, Callable[[int], bytes]] = {
        "window overflow": lambda number: window_update(number, 0x7FFFFFFF),
        "empty window update": lambda number: window_update(number, 0),
        "priority of itself": lambda number: frame(PRIORITY, number, struct.pack(">IB", number, 0)),
    }
    for name, provoke in provocations.items():
        async with await site.wire() as wire:
            head = block(fields_of(site.ask("provoke").carrying(b""), wire.address))
            sent = 0
            while sent < 500 and not wire.refused:
                number = wire.lane().number
                opened = frame(HEADERS, number, head, END_HEADERS)
                if not await wire.write(opened + provoke(number)):
                    break
                sent += 1
                await asyncio.sleep(0.002)
            await wire.ends(_CLOSED_S if sent < 500 else 0.2)
            expect(wrong, wire.refused, f"{name}: {sent} streams, and the connection goes on")
    return wrong


@case("CL-14", "header blocks that unfold to much (HPACK)", fails_on_stock=True)
async def header_bomb(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with await site.wire(window=0) as wire:
        head = block(fields_of(site.ask("bomb").carrying(b""), wire.address))
        # One new entry of the table, and 1800 references of one byte to it.
        bomb = head + b"\x40\x01x\x00" + b"\xbe" * 1800
        lanes = [wire.lane() for _ in range(100)]
        quiet = await site.cores(1.0)
        last = END_HEADERS | END_STREAM
        await wire.write(b"".join(frame(HEADERS, lane.number, bomb, last) for lane in lanes))
        loud = await site.cores(_BOMB_S)
        each = (loud - quiet) * _BOMB_S / len(lanes) * 1000
        expect(wrong, each <= 5, f"{each:.1f} ms for each of a hundred bombs")
        end = time.monotonic() + 7
        while not wire.refused and not all(lane.over for lane in lanes):
            if not expect(wrong, time.monotonic() < end, "streams are pinned without a window"):
                break
            for lane in lanes:
                await lane.ends(0.01)
    wrong += await _long_value(site)
    return wrong


async def _long_value(site: Site) -> list[str]:
    """A value of 40 KB that Huffman coding makes smaller."""
    async with await site.wire() as wire:
        fields = [*fields_of(site.ask("long value"), wire.address), ("x-long", "a" * 40_000)]
        data = Encoder().encode(fields, huffman=True)
        lane = wire.lane()
        await wire.write(
            frame(HEADERS, lane.number, data[:16_000], END_STREAM)
            + frame(CONTINUATION, lane.number, data[16_000:], END_HEADERS)
        )
        await lane.ends()
        good = lane.answer.status == 431 or lane.answer.reset is not None or wire.refused
        return [] if good else [f"a value of 40 KB: {lane.fate}"]


@case("CL-15", "CONTINUATION without end")
async def continuations(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    kinds = {"small": b"\x00\x01a\x01b", "empty": b"", "large": b"\x00\x01a\x7f\x81\x7b" * 2500}
    for name, payload in kinds.items():
        async with await site.wire() as wire:
            head = block(fields_of(site.ask("endless").carrying(b""), wire.address))
            lane = wire.lane()
            await wire.write(frame(HEADERS, lane.number, head, END_STREAM))
            sent = 0
            while sent < 2000 and not wire.refused:
                if not await wire.write(frame(CONTINUATION, lane.number, payload) * _TEN):
                    break
                sent += _TEN
                await asyncio.sleep(0.002)
            closed = await wire.ends(_CLOSED_S)
            expect(wrong, closed, f"{name}: {sent} frames, and the connection goes on")
    return wrong


@case("CL-16", "PING, SETTINGS, PRIORITY, WINDOW_UPDATE and empty frames in masses")
async def control_floods(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    ping, empty = frame(PING, 0, bytes(8)), frame(SETTINGS)
    floods: dict[str, Iterator[bytes]] = {
        "PING": _repeated(ping, 20_000),
        "SETTINGS": _repeated(empty, 20_000),
        "PRIORITY of 1100 ids": _priorities(range(1, 2201, 2)),
        "PRIORITY of one stream": _priorities([1] * 5000),
        "WINDOW_UPDATE of one": _repeated(window_update(0, 1), 20_000),
    }
    for name, flood in floods.items():
        async with await site.wire() as wire:
            wrong += await _flood(site, wire, name, flood)
    async with await site.wire() as wire:
        lane = await wire.ask(site.ask("empty").carrying(b""), end=False)
        data = frame(DATA, lane.number)
        wrong += await _flood(site, wire, "empty DATA", _repeated(data, 20_000))
    return wrong


def _repeated(data: bytes, times: int) -> Iterator[bytes]:
    for _ in range(times // 50):
        yield data * 50


def _priorities(streams: "range | list[int]") -> Iterator[bytes]:
    for start in range(0, len(streams), 50):
        chosen = streams[start : start + 50]
        yield b"".join(frame(PRIORITY, each, struct.pack(">IB", 0, 16)) for each in chosen)


async def _flood(site: Site, wire: Wire, name: str, flood: Iterator[bytes]) -> list[str]:
    """What is wrong: not cut off, or at too high a price."""
    before = site.cpu_seconds()
    for number, data in enumerate(flood):
        if wire.refused or not await wire.write(data):
            break
        if number % 4 == 0:
            await asyncio.sleep(0.002)
    await wire.ends(_CLOSED_S / 2)
    spent = site.cpu_seconds() - before
    wrong = [] if wire.refused else [f"{name}: the connection goes on"]
    return wrong + ([] if spent < _CPU_S else [f"{name}: {spent:.2f} s of processor time"])


@case("CL-20", "a hundred and one streams; ids that go down; ids that are not a client's")
async def stream_ids(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    gate = site.model.holds("many")
    async with await site.wire() as wire:
        lanes = [await wire.ask(site.ask("many", session=f"many-{n}")) for n in range(100)]
        for lane in lanes:
            await lane.head()
        surplus = await wire.ask(site.ask("many", session="surplus"))
        refused = await surplus.ends()
        good = refused and (surplus.answer.reset == REFUSED_STREAM or surplus.answer.status == 503)
        expect(wrong, good, f"the surplus stream: {surplus.fate}")
        gate.set()
        whole = [await in_time(completes(lane)) for lane in lanes]
        expect(wrong, all(whole), f"{whole.count(False)} of 100 streams were cut")
    for name, numbers in {"down": (5, 3), "even": (2,)}.items():
        async with await site.wire() as wire:
            head = block(fields_of(site.stranger().carrying(b""), wire.address))
            for number in numbers:
                lane = wire.lane(number)
                await wire.write(frame(HEADERS, number, head, END_HEADERS | END_STREAM))
            await lane.ends()
            good = wire.refused or lane.answer.reset is not None
            expect(wrong, good, f"an id that goes {name}: {lane.fate}")
    return wrong
