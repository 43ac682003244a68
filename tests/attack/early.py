"""Answers that are given before the request is over, and requests that never get over."""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable

from tests.attack.case import case, expect
from tests.attack.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    WAIT_S,
    Wire,
    block,
    fields_of,
    frame,
)
from tests.attack.site import (
    BODY_S,
    LATE_S,
    Site,
    completes,
    in_time,
    limited_key,
    status_of,
)
from tests.e2e.routes import WIDGET
from tests.e2e.wire import Request, whole

_HEADER_S = 5.0


def _early(site: Site) -> dict[str, tuple[Request, int]]:
    """Requests that are refused on their head alone, and the status."""
    large = site.ask("large").plus(("content-length", "10000000000"))
    limited = WIDGET.request("limited", "Hello", credential=limited_key())
    return {
        "401": (site.stranger().carrying(b""), 401),
        "413": (large.carrying(b""), 413),
        "429": (limited.carrying(b""), 429),
    }


async def _use_up(site: Site) -> None:
    """Spends the one request of the limited tenant."""
    connection = await site.h1()
    await whole(await connection.send(WIDGET.request("limited", "Hello", credential=limited_key())))
    await connection.close()


@case("CL-01", "refused on the head while the body arrives", fails_on_stock=True)
async def early_answer(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    await _use_up(site)
    for name, (request, status) in _early(site).items():
        await _early_h1(site, name, request, status, wrong)
        await _early_h2(site, name, request, status, wrong)
    return wrong


async def _early_h1(site: Site, name: str, request: Request, status: int, wrong: list[str]) -> None:
    if name == "413":
        return  # the declared length goes with no chunks
    connection = await site.h1()
    head = connection.head_of(request.plus(("transfer-encoding", "chunked")), declare=False)
    refused = await connection.send_bytes(head + b"1\r\nx\r\n" * 15 + b"0\r\n\r\n")
    seen = await status_of(refused)
    expect(wrong, seen == status, f"{name}, HTTP/1.1: {seen or 'no answer'}")
    again = await connection.send(site.ask("next"))
    good = await in_time(completes(again, "You said: next"))
    expect(wrong, good, f"{name}, HTTP/1.1: the next request was not served")
    await connection.close()


async def _early_h2(site: Site, name: str, request: Request, status: int, wrong: list[str]) -> None:
    gate = site.model.holds(f"beside {name}")
    async with await site.wire() as wire:
        beside = await wire.ask(site.ask(f"beside {name}"))
        await beside.part()
        lane = wire.lane()
        head = frame(HEADERS, lane.number, block(fields_of(request, wire.address)), END_HEADERS)
        body = frame(DATA, lane.number, b"x") * 14 + frame(DATA, lane.number, b"x", END_STREAM)
        if name == "413":  # its length is a lie; the rest never comes
            body = frame(DATA, lane.number, b"x") * 15
        await wire.write(head + body)
        await lane.ends()
        expect(wrong, lane.answer.status == status, f"{name}, HTTP/2: {lane.fate}")
        gate.set()
        expect(wrong, await in_time(completes(beside)), f"{name}: the stream beside was cut")
        good = await in_time(completes(await wire.ask(site.ask("next")), "You said: next"))
        expect(wrong, good, f"{name}, HTTP/2: the next request was not served")


@case("CL-02", "body after a refusal, beside a stream", fails_on_stock=True)
async def late_data(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    gate = site.model.holds("beside")
    async with await site.wire() as wire:
        beside = await wire.ask(site.ask("beside"))
        await beside.part()
        for number in range(3):
            lane = await wire.ask(site.stranger().carrying(b""), end=False)
            answer = await lane.head()
            expect(wrong, answer.status == 401, f"try {number}: {lane.fate}")
            await asyncio.sleep(0.3)
            await wire.write(frame(DATA, lane.number, b"x" * 100, END_STREAM))
        await asyncio.sleep(0.2)
        gate.set()
        expect(wrong, await in_time(completes(beside)), "the stream beside was cut")
    return wrong


@case("CL-04", "half-closed by the client in the middle of a stream")
async def half_close(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    site.model.holds("half")
    connection = await site.h1()
    exchange = await connection.send(site.ask("half"))
    await exchange.part()
    connection.writer.write_eof()
    left = await site.model.is_left("half", 1.0)
    expect(wrong, left, "the model's connection was kept for a client that is taken as gone")
    await connection.close()
    return wrong


@case("CL-17", "bytes now and then: heads, bodies, handshakes", waits=True)
async def slow(site: Site, full: bool) -> list[str]:
    attempts = [_slow_head(site), _slow_body_h1(site), _slow_body_h2(site)]
    if site.process.tls is not None:
        attempts.append(_slow_handshake(site))
    return [each for wrong in await asyncio.gather(*attempts) for each in wrong]


async def _slow_head(site: Site) -> list[str]:
    connection = await site.h1()
    await connection.write(b"POST /chat HTTP/1.1\r\nhost: x\r\n")
    took = await _until_refused(connection.reader, _drips(connection.write, b"a"), _HEADER_S)
    await connection.close()
    return [] if took else ["a head a byte at a time was waited for without end"]


async def _slow_body_h1(site: Site) -> list[str]:
    connection = await site.h1()
    request = site.ask("slow")
    await connection.write(connection.head_of(request))
    took = await _until_refused(connection.reader, _drips(connection.write, b"{"), BODY_S)
    await connection.close()
    if not took:
        return ["a body a byte at a time was waited for without end"]
    good = took == b"end" or b" 408 " in took.partition(b"\r\n")[0]
    return [] if good else [f"slow body: {took[:40]!r}"]


async def _until_refused(
    reader: asyncio.StreamReader, dripping: "asyncio.Task[None]", limit: float
) -> bytes:
    """What came first, `end` for the connection's end, nothing if neither came in time."""
    try:
        async with asyncio.timeout(limit + LATE_S):
            return await reader.read(65_536) or b"end"
    except TimeoutError:
        return b""
    except OSError:
        return b"end"
    finally:
        dripping.cancel()


def _drips(send: Callable[[bytes], Awaitable[object]], data: bytes) -> "asyncio.Task[None]":
    async def drip() -> None:
        while True:
            await asyncio.sleep(0.2)
            try:
                await send(data)
            except OSError:
                return

    return asyncio.create_task(drip())


async def _slow_body_h2(site: Site) -> list[str]:
    wrong: list[str] = []
    gate = site.model.holds("beside slow")
    async with await site.wire() as wire:
        beside = await wire.ask(site.ask("beside slow"))
        await beside.part()
        lane = await wire.ask(site.ask("slow").carrying(b""), end=False)
        dripping = _drips(wire.write, frame(DATA, lane.number, b"{"))
        over = await lane.ends(BODY_S + LATE_S)
        dripping.cancel()
        good = over and (lane.answer.status == 408 or lane.answer.reset is not None)
        expect(wrong, good, f"slow body, HTTP/2: {lane.fate}")
        gate.set()
        expect(wrong, await in_time(completes(beside)), "the stream beside was cut")
    return wrong


async def _slow_handshake(site: Site) -> list[str]:
    assert site.process.tls is not None
    reader, writer = await asyncio.open_connection(*site.process.tls)

    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    writer.write(b"\x16\x03\x01\x02\x00")  # a record of 512 bytes is announced
    took = await _until_refused(reader, _drips(send, b"\x01"), _HEADER_S)
    writer.close()
    return [] if took else ["a handshake a byte at a time was waited for without end"]


@case("CL-18", "pipelined requests: fifty, a broken one, a client that leaves")
async def pipelining(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    connection = await site.h1()
    await connection.write(b"".join(_health(site, number) for number in range(50)))
    data = b""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(WAIT_S):
            while data.count(b"HTTP/1.1 200") < 50:
                data += await connection.reader.read(65_536)
    numbers = re.findall(rb"x-request-id: pipe-(\d+)\r\n", data)
    expect(wrong, numbers == [b"%d" % n for n in range(50)], f"answers in order: {numbers}")
    await connection.close()
    wrong += await _broken_second(site)
    for number in range(10):
        leaving = await site.h1()
        await leaving.write(b"".join(_health(site, number) for number in range(20)))
        if number % 2:
            leaving.abort()
        else:
            await leaving.close()
    return wrong


def _health(site: Site, number: int) -> bytes:
    return (
        f"GET /health HTTP/1.1\r\nhost: {site.address}\r\nx-request-id: pipe-{number}\r\n\r\n"
    ).encode()


async def _broken_second(site: Site) -> list[str]:
    connection = await site.h1()
    broken = b"GET /health HTTP/1.1\r\nhost: x\r\n: no name\r\n\r\n"
    await connection.write(_health(site, 0) + broken + _health(site, 2))
    began = time.monotonic()
    try:
        async with asyncio.timeout(WAIT_S):
            data = await connection.reader.read(-1)
    except (OSError, TimeoutError):
        return [f"a broken request did not end its connection ({time.monotonic() - began:.1f} s)"]
    finally:
        await connection.close()
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", data)
    return [] if statuses == [b"200", b"400"] else [f"answers to a broken pipeline: {statuses}"]


@case("BI-10", "bodies over the limit, beside a stream")
async def oversize(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    large = b'{"message":"' + b"x" * 150_000
    connection = await site.h1()
    head = connection.head_of(
        site.ask("large").plus(("content-length", "10000000000")), declare=False
    )
    declared = await status_of(await connection.send_bytes(head))
    expect(wrong, declared == 413, f"declared: {declared}")
    await connection.close()
    connection = await site.h1()
    chunked = site.ask("large").plus(("transfer-encoding", "chunked"))
    head = connection.head_of(chunked, declare=False)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large)
    chunked_status = await status_of(await connection.send_bytes(head + body))
    expect(wrong, chunked_status == 413, f"chunked: {chunked_status}")
    await connection.close()
    gate = site.model.holds("beside large")
    async with await site.wire() as wire:
        beside = await wire.ask(site.ask("beside large"))
        await beside.part()
        wrong += await _large_h2(site, wire, large)
        gate.set()
        expect(wrong, await in_time(completes(beside)), "the stream beside was cut")
    return wrong


async def _large_h2(site: Site, wire: Wire, large: bytes) -> list[str]:
    lane = await wire.ask(site.ask("large").carrying(b""), end=False)
    for start in range(0, len(large), 16_000):
        await wire.write(frame(DATA, lane.number, large[start : start + 16_000]))
        await asyncio.sleep(0.01)  # the window's credit has to come back
        if lane.over:
            break
    await lane.ends()
    good = lane.answer.status == 413
    return [] if good else [f"HTTP/2: {lane.fate}"]
