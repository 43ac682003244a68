"""Connections that say nothing, or half of something."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from tests.attack.case import case, expect
from tests.attack.frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    PREFACE,
    announced,
    block,
    fields_of,
    frame,
)
from tests.attack.good import GoodClient, p99_ms, warmed
from tests.attack.site import LATE_S, Site, open_site
from tests.e2e.tls import client_context

# The latest clock of a connection without a request: a head may take five seconds.
_CLOSED_S = 5.0 + LATE_S
_EACH = 5
_MEBIBYTE = 1 << 20
_HALF_HEAD = b"POST /chat HTTP/1.1\r\nhost: x\r\nx-half:"


class _Peer:
    """A connection that only waits for its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.closed = asyncio.create_task(self._wait(reader))

    async def _wait(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass

    async def close(self) -> None:
        self.closed.cancel()
        self.writer.close()
        await asyncio.wait([self.closed])


async def _peer(site: Site, data: bytes = b"") -> _Peer:
    reader, writer = await asyncio.open_connection(*site.address)
    if data:
        writer.write(data)
        await writer.drain()
    return _Peer(reader, writer)


@case("CL-10", "silence, prefaces, half heads, half frames", fails_on_stock=True, waits=True)
async def silence(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    before = site.resident_bytes()
    hello = PREFACE + frame(4)
    head = block(fields_of(site.ask("half").carrying(b""), site.address))
    size = 15_900_000 if full else 1_000_000
    kinds: dict[str, Callable[[], Awaitable[_Peer]]] = {
        "TCP only": lambda: _peer(site),
        "half a head": lambda: _peer(site, _HALF_HEAD),
        "preface only": lambda: _peer(site, hello),
        "half a preface": lambda: _peer(site, PREFACE[:10]),
        "half a header block": lambda: _peer(site, hello + frame(HEADERS, 1, head)),
        "half of a frame of 16 MB": lambda: _huge(site, hello, size),
        "half a body": lambda: _peer(site, hello + frame(HEADERS, 1, head, END_HEADERS)),
    }
    if site.process.tls is not None:
        kinds["TLS handshake only"] = lambda: _handshake(site)
    peers = [(name, await open_()) for name, open_ in kinds.items() for _ in range(_EACH)]
    await asyncio.wait([peer.closed for _, peer in peers], timeout=_CLOSED_S)
    for name in kinds:
        left = sum(not peer.closed.done() for kind, peer in peers if kind == name)
        expect(wrong, not left, f"{name}: {left} of {_EACH} were not closed")
    for _, peer in peers:
        await peer.close()
    grown = site.resident_bytes() - before
    expect(wrong, grown < 30 * _MEBIBYTE, f"{grown / _MEBIBYTE:.0f} MiB are kept")
    return wrong


async def _huge(site: Site, hello: bytes, size: int) -> _Peer:
    """A frame of 16 MB is announced, and most of it sent for as long as anybody takes it."""
    peer = await _peer(site, hello)
    peer.writer.write(announced(DATA, 1, (1 << 24) - 1))
    for _ in range(size // 100_000):
        if peer.closed.done() or peer.writer.transport.is_closing():
            break
        peer.writer.write(bytes(100_000))
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2):
                await peer.writer.drain()
    return peer


async def _handshake(site: Site) -> _Peer:
    assert site.process.tls is not None
    reader, writer = await asyncio.open_connection(*site.process.tls, ssl=client_context("h2"))
    return _Peer(reader, writer)


@case("CL-11", "ten thousand idle connections for a minute", long=True, alone=True)
async def crowd(site: Site, full: bool) -> list[str]:
    wrong: list[str] = []
    async with open_site(site.kind, limits={"connection_idle_s": 120}) as own:
        base = await warmed(own)
        quiet = GoodClient(own)
        await asyncio.sleep(3)
        wrong += await quiet.stop()
        memory = own.resident_bytes()
        health = f"GET /health HTTP/1.1\r\nhost: {own.address}\r\n\r\n".encode()
        peers = []
        for number in range(10_000):
            peers.append(await _peer(own, health if number % 2 else PREFACE + frame(4)))
        for _ in range(60):
            if (await own.held()).descriptors >= base.descriptors + len(peers):
                break
            await asyncio.sleep(1)
        good = GoodClient(own)
        await asyncio.sleep(60)
        wrong += await good.stop()
        early = sum(peer.closed.done() for peer in peers)
        expect(wrong, not early, f"{early} connections were closed early")
        grown = (own.resident_bytes() - memory) / len(peers)
        expect(wrong, grown < 120_000, f"{grown / 1024:.0f} KiB a connection")
        print(
            f"      {len(peers)} connections: {grown / 1024:.1f} KiB each, p99 "
            f"{p99_ms(quiet.seconds):.0f} ms before, {p99_ms(good.seconds):.0f} ms with them"
        )
        for peer in peers:
            peer.writer.close()
        began = time.monotonic()
        wrong += await own.leaks(base, within=4 * LATE_S)
        print(f"      all let go {time.monotonic() - began:.1f} s after they had closed")
        for peer in peers:
            await peer.close()
    return wrong
