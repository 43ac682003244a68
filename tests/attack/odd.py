"""Requests that are not what a server expects, and connections that serve for long."""

import asyncio
import contextlib
from collections.abc import Mapping

from tests.attack.case import case, expect
from tests.attack.frames import END_HEADERS, END_STREAM, HEADERS, WAIT_S, Wire, block, frame
from tests.attack.hooks import RAISES_AFTER, RAISES_BEFORE
from tests.attack.site import Site, completes, in_time, status_of
from tests.e2e.routes import WIDGET
from tests.e2e.wire import Answer, Exchange, Request, whole
from tests.e2e.world import read

_ABREAST = 20


def _odd_heads(site: Site) -> Mapping[str, list[tuple[bytes, bytes]]]:
    authority = (b":authority", str(site.address).encode())
    scheme = (b":scheme", b"http")
    health = (b":path", b"/health")
    get = (b":method", b"GET")
    websocket = (b":protocol", b"websocket")
    return {
        "path of 0xff": [get, (b":path", b"/\xff"), scheme, authority],
        "query of 0xff": [get, (b":path", b"/health?\xff"), scheme, authority],
        "method of 0xff": [(b":method", b"\xff"), health, scheme, authority],
        "CONNECT": [(b":method", b"CONNECT"), authority],
        "extended CONNECT": [(b":method", b"CONNECT"), websocket, health, scheme, authority],
        "no method": [health, scheme, authority],
        "two paths": [get, health, health, scheme, authority],
        "upper case": [get, health, scheme, authority, (b"X-Upper", b"a")],
        "transfer-encoding": [get, health, scheme, authority, (b"transfer-encoding", b"chunked")],
        "connection": [get, health, scheme, authority, (b"connection", b"close")],
        "a line end in a value": [get, health, scheme, authority, (b"x-a", b"a\r\nx-b: c")],
    }


@case("CL-19", "odd request lines and heads, beside a stream", fails_on_stock=True)
async def odd_heads(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    gate = site.model.holds("beside odd")
    async with await site.wire() as wire:
        beside = await wire.ask(site.ask("beside odd"))
        await beside.part()
        for name, head in _odd_heads(site).items():
            lane = wire.lane()
            data = block(head)
            await wire.write(frame(HEADERS, lane.number, data, END_HEADERS | END_STREAM))
            await lane.ends()
            if not expect(wrong, not wire.refused, f"{name}: the whole connection was ended"):
                return wrong
            good = lane.answer.reset is not None or 400 <= lane.answer.status < 600
            if name.startswith("query"):
                good = good or lane.answer.status == 200
            expect(wrong, good, f"{name}: {lane.fate}")
        gate.set()
        good = await in_time(completes(beside))
        expect(wrong, good, "the stream beside was cut")
    return wrong + await _odd_http1(site)


async def _odd_http1(site: Site) -> list[str]:
    wrong: list[str] = []
    host = f"host: {site.address}\r\n"
    upgrade = f"GET /health HTTP/1.1\r\n{host}connection: upgrade\r\nupgrade: websocket\r\n"
    upgrade += "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    later = f"GET /health HTTP/1.1\r\n{host}\r\n" + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    connect = f"CONNECT {site.address} HTTP/1.1\r\n{host}\r\n"
    odd = {"upgrade": upgrade, "PRI later": later, "CONNECT": connect}
    answers = await asyncio.gather(*(_answered(site, data) for data in odd.values()))
    for name, answer in zip(odd, answers, strict=True):
        tunnel = b"HTTP/1.1 101" in answer or (name == "CONNECT" and b"HTTP/1.1 200" in answer)
        expect(wrong, not tunnel, f"{name}: a tunnel was opened")
    return wrong


async def _answered(site: Site, data: str) -> bytes:
    """What comes back within a second."""
    connection = await site.h1()
    await connection.write(data.encode())
    answer = b""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(1.0):
            while piece := await connection.reader.read(65_536):
                answer += piece
    await connection.close()
    return answer


@case("CL-21", "a connection of many turns beside a long stream", fails_on_stock=True)
async def many_turns(site: Site, full: bool) -> list[str]:
    turns = 5000 if full else 1100
    gate = site.model.holds("long")
    async with await site.wire() as wire:
        long = await wire.ask(site.ask("long"))
        await long.part()
        done = 0
        while done < turns:
            asked = [site.ask(f"turn {done + n}") for n in range(_ABREAST)]
            lanes = [await wire.ask(request) for request in asked]
            for number, lane in enumerate(lanes):
                text = f"You said: turn {done + number}"
                if not await in_time(completes(lane, text)):
                    return [f"turn {done + number} on the connection: {lane.fate}"]
            done += _ABREAST
            site.model.upstream.requests.clear()
        gate.set()
        if not await in_time(completes(long)):
            return [f"the long stream: {long.fate}"]
    return []


@case("R31", "1100 short requests beside one long stream on one connection")
async def many_requests(site: Site, full: bool) -> list[str]:
    gate = site.model.holds("long beside")
    health = Request("GET", "/health")
    async with await site.wire() as wire:
        long = await wire.ask(site.ask("long beside"))
        await long.part()
        for done in range(0, 1100, 50):
            lanes = [await wire.ask(health) for _ in range(50)]
            for lane in lanes:
                if await status_of(lane) != 200 or not lane.answer.ended:
                    return [f"a request after {done} on the connection: {lane.fate}"]
        gate.set()
        if not await in_time(completes(long)):
            return [f"the long stream: {long.fate}"]
    return []


@case("CL-22", "a turn that raises before its answer, and in it", fails_on_stock=True, faults=True)
async def raises(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    for conversation in (RAISES_BEFORE, RAISES_AFTER):
        request = site.ask("raise", session=conversation)
        connection = await site.h1()
        wrong += await _raised(conversation, "HTTP/1.1", await connection.send(request))
        await connection.close()
        async with await site.wire() as wire:
            wrong += await _raised(conversation, "HTTP/2", await wire.ask(request))
            good = await _serves(wire, site)
            expect(wrong, good, f"{conversation}: the connection serves no more")
    return wrong


async def _serves(wire: Wire, site: Site) -> bool:
    lane = await wire.ask(site.ask("after"))
    return await in_time(completes(lane, "You said: after"))


async def _raised(name: str, version: str, exchange: Exchange) -> list[str]:
    """What is wrong with the answer to a turn that raised."""
    try:
        answer = await asyncio.wait_for(whole(exchange), WAIT_S)
    except (TimeoutError, EOFError, OSError) as error:
        return [f"{name}, {version}: {error!r}"]
    if not answer.ended:
        return [f"{name}, {version}: {answer.status} without a proper end"]
    good = _refused(answer) if name == RAISES_BEFORE else _told(answer)
    return [] if good else [f"{name}, {version}: {answer.status} {answer.body[:80]!r}"]


def _refused(answer: Answer) -> bool:
    return answer.status == 500 and answer.body == b'{"error":"Internal server error"}'


def _told(answer: Answer) -> bool:
    return answer.status == 200 and read(WIDGET, answer).terminals == ["error"]
