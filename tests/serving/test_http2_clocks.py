import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from hyperframe.frame import ContinuationFrame, GoAwayFrame, HeadersFrame

from tests.e2e.frames import PREFACE, Frames
from tests.e2e.tls import client_context
from tests.serving.rig import Service, service

IDLE_S = 0.4


@pytest.fixture(params=["plain", "tls"])
async def it(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    async with service(idle_s=IDLE_S, tls=request.param == "tls") as running:
        yield running


HALVES: dict[str, Callable[[Frames], bytes]] = {
    "nothing": lambda it: b"",
    "half a frame's header": lambda it: bytes(5),
    "half a PING": lambda it: b"\x00\x00\x08\x06" + bytes(9),
    "half a header block's frame": lambda it: it.request(1).serialize()[:-3],
    "half a DATA frame of an upload": lambda it: (
        it.request(1, "/echo", method="POST", end=False).serialize()
        + it.data(1, b"x" * 10_000).serialize()[:-1]
    ),
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
async def test_a_client_that_stops_half_way_is_closed(
    it: Service, half: Callable[[Frames], bytes]
) -> None:
    began = time.monotonic()
    async with await it.client() as client:
        client.write(half(client))
        assert isinstance((await client.end())[-1], GoAwayFrame)
    assert time.monotonic() - began >= IDLE_S


@pytest.mark.parametrize("part", [PREFACE[:0], PREFACE[:-4]], ids=["nothing", "a part"])
async def test_a_client_that_does_not_end_its_preface_is_closed(it: Service, part: bytes) -> None:
    tls = client_context("h2") if it.tls else None
    reader, writer = await asyncio.open_connection(*it.address, ssl=tls)
    client = Frames(it.address, reader, writer)
    client.write(part)
    await client.end()
    await client.close()


async def test_a_client_that_drips_a_frame_is_closed(it: Service) -> None:
    async with await it.client() as client:
        for _ in range(100):
            client.write(b"\x00")
            await asyncio.sleep(IDLE_S / 10)
            if not len(it.connections):
                break
        await client.end()
        assert not len(it.connections)


async def test_half_a_header_block_has_five_seconds_whatever_else_goes_on() -> None:
    async with service() as it, await it.client() as client:
        client.write(client.request(1, "/wait"))
        await client.status(1)
        began = time.monotonic()
        block = client.request(3).data
        client.write(HeadersFrame(3, block[:5], flags=["END_STREAM"]))
        await asyncio.sleep(1)
        client.write(ContinuationFrame(3, block[5:6]))
        await client.end()
        assert 4.9 < time.monotonic() - began < 15


async def test_pings_do_not_keep_an_idle_connection(it: Service) -> None:
    async with await it.client() as client:
        for _ in range(100):
            client.write(b"\x00\x00\x08\x06" + bytes(13))
            await asyncio.sleep(IDLE_S / 10)
            if not len(it.connections):
                break
        await client.end()
        assert not len(it.connections)


async def test_a_connection_with_a_request_is_not_idle(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/wait"))
        await client.status(1)
        await asyncio.sleep(3 * IDLE_S)
        began = time.monotonic()
        it.go.set()
        assert (await client.body(1))[-1] == b"done"
        await client.end()
        assert time.monotonic() - began >= IDLE_S / 2
