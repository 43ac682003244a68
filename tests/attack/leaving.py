"""Clients that go: at every stage, in every way."""

import asyncio
import socket
import struct

from tests.attack.case import case, expect
from tests.attack.frames import (
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    block,
    fields_of,
    frame,
    reset,
    window_update,
)
from tests.attack.site import Site, completes, in_time
from tests.e2e.http1 import H1, head_of

_LEFT_S = 3.0  # 0.1, and what a busy machine makes of it


@case("CL-03", "TCP closed at every stage of a request", fails_on_stock=True)
async def tcp_closed(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    for ending in ("FIN", "RST"):
        await _leaves_early(site, ending)
        for stage in ("before the first word", "in the middle", "at the last word", "unread"):
            text = f"{stage}, {ending}"
            if not await _leaves(site, stage, text, ending):
                wrong.append(f"{text}: the model's connection was kept")
    for ending in ("FIN", "RST"):
        text = f"HTTP/2 connection, {ending}"
        site.model.holds(text)
        wire = await site.wire()
        lanes = [await wire.ask(site.ask(text, session=f"{ending}-{n}")) for n in range(4)]
        for lane in lanes:
            await lane.part()
        await wire.close(abort=ending == "RST")
        expect(wrong, await site.model.is_left(text, _LEFT_S), f"{text}: kept")
    return wrong


async def _leaves_early(site: Site, ending: str) -> None:
    """In the middle of the head, and of the body: nothing was asked for yet."""
    request = site.ask("never asked")
    for cut in (30, -5):
        connection = await site.h1()
        data = connection.head_of(request) + request.body
        await connection.write(data[:cut])
        await asyncio.sleep(0.02)
        await _go(connection, ending)


async def _leaves(site: Site, stage: str, text: str, ending: str) -> bool:
    """Whether the model's connection is left in time."""
    if stage == "unread":
        return await _leaves_unread(site, text, ending)
    gate = site.model.holds(text, "" if stage.startswith("before") else "First")
    connection = await site.h1()
    exchange = await connection.send(site.ask(text))
    await site.model.called(text)
    if not stage.startswith("before"):
        await exchange.part()
    if stage.startswith("at the last"):
        gate.set()
    await _go(connection, ending)
    return await site.model.is_left(text, _LEFT_S)


async def _leaves_unread(site: Site, text: str, ending: str) -> bool:
    """Gone while the server waits for it to read."""
    site.model.pours(text, 50)
    deaf = deaf_client(site, text)
    await site.model.called(text)
    await asyncio.sleep(0.5)
    if ending == "RST":
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deaf.close()
    return await site.model.is_left(text, _LEFT_S)


async def _go(connection: H1, ending: str) -> None:
    if ending == "RST":
        connection.abort()
    else:
        await connection.close()


def deaf_client(site: Site, text: str, session: str = "") -> socket.socket:
    """A connection with a small window, on which a request was sent and nothing is read."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(site.address)
    request = site.ask(text, session=session)
    own.sendall(head_of(request, site.address) + request.body)
    return own


@case("CL-05", "RST_STREAM in the middle, with a window and without", fails_on_stock=True)
async def stream_reset(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    for window in (1 << 24, 0):
        name = "open window" if window else "no window"
        gate = site.model.holds(f"beside, {name}")
        site.model.holds(f"leaving, {name}")
        async with await site.wire(window=window) as wire:
            beside = await wire.ask(site.ask(f"beside, {name}"))
            await site.model.called(f"beside, {name}")
            for number in range(4):
                text = f"leaving, {name}"
                lane = await wire.ask(site.ask(text, session=f"{window}-{number}"))
                await site.model.called(text, number + 1)
                if window:
                    await lane.part()
                else:
                    await asyncio.sleep(0.1)
                await lane.vanish()
            left = await site.model.is_left(f"leaving, {name}", _LEFT_S)
            expect(wrong, left, f"{name}: the model's connection was kept")
            gate.set()
            if not window:
                await wire.write(window_update(beside.number, 65_000))
            good = await in_time(completes(beside))
            expect(wrong, good, f"{name}: the stream beside was cut")
    return wrong


@case("CL-06", "GOAWAY from the client, then silence")
async def client_goaway(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    gate = site.model.holds("goaway")
    async with await site.wire() as wire:
        lane = await wire.ask(site.ask("goaway"))
        await lane.part()
        await wire.write(frame(GOAWAY, 0, bytes(8)))
        await asyncio.sleep(0.2)
        gate.set()
        over = await lane.ends()
        left = await site.model.is_left("goaway", _LEFT_S)
        expect(wrong, over and left, f"the stream neither ended nor was let go: {lane.fate}")
        expect(wrong, await wire.ends(9), "the connection was kept")
    return wrong


@case("CL-07", "a hundred streams opened and reset in one segment")
async def opened_and_reset(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    text = "opened and reset"
    site.model.holds(text)
    async with await site.wire() as wire:
        request = site.ask(text)
        head = block(fields_of(request, wire.address))
        pieces = []
        for number in range(1, 200, 2):
            opened = frame(HEADERS, number, head, END_HEADERS)
            body = frame(0, number, request.body, END_STREAM)
            pieces += [opened, body, reset(number)]
        await wire.write(b"".join(pieces))
        await asyncio.sleep(0.3)
        expect(wrong, await site.model.is_left(text, _LEFT_S), "calls of the model were kept")
    return wrong
