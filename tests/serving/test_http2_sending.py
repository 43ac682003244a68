import asyncio
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, SettingsFrame

from tests.serving.rig import PIECE, PIECES, Service, service

WINDOW = SettingCodes.INITIAL_WINDOW_SIZE
LARGE = 1 << 30


@pytest.fixture(params=["plain", "tls"])
async def it(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    async with service(tls=request.param == "tls") as running:
        yield running


async def test_every_body_message_is_a_frame_of_its_own(it: Service) -> None:
    it.records = [b"%d" % number * (number % 90 + 1) for number in range(500)]
    it.records += [b"x" * 16_384, b"y" * 16_383, b"z"]
    async with await it.client({WINDOW: LARGE}) as client:
        client.write(client.credit(0, LARGE), client.request(1, "/records"))
        assert await client.body(1) == [*it.records, b"done"]


async def test_a_frame_is_as_long_as_the_peer_takes_it(it: Service) -> None:
    it.records = [b"x" * 40_000, b"y" * 20_000]
    async with await it.client({WINDOW: LARGE, SettingCodes.MAX_FRAME_SIZE: 30_000}) as client:
        client.write(client.credit(0, LARGE), client.request(1, "/records"))
        parts = await client.body(1)
    assert [len(part) for part in parts] == [30_000, 10_000, 20_000, 4]


@pytest.mark.parametrize("shut", [1, 0], ids=["the stream's", "the connection's"])
async def test_a_shut_window_holds_the_sender_and_nothing_is_stored(it: Service, shut: int) -> None:
    async with await it.client({WINDOW: 0 if shut else LARGE}) as client:
        client.write(client.credit(0, LARGE if shut else 1), client.request(1, "/much"))
        await client.status(1)
        tracemalloc.start()
        await asyncio.sleep(0.2)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert it.sent["/much"] < 1 << 17
        assert held < 1 << 20
        client.write(client.credit(shut, LARGE))
        assert len(b"".join(await client.body(1))) == PIECES * len(PIECE) + 4


async def test_a_peer_that_reads_nothing_holds_the_sender(it: Service) -> None:
    async with await it.client({WINDOW: LARGE}) as client:
        client.write(client.credit(0, LARGE))
        for number in range(1, 21, 2):
            client.write(client.request(number, "/much"))
        await it.until(lambda: it.running["/much"] + it.ended["/much"] == 10)
        sent = -1
        while sent != it.sent["/much"]:
            sent = it.sent["/much"]
            await asyncio.sleep(0.2)
        # What the kernel's two buffers and the client's own take; all of it would be 49 MB.
        assert sent < 20 << 20
        assert it.running["/much"]
        client.write(client.request(21))
        while it.running["/much"]:
            await client.read()
        assert sum(len(f.data) for f in client.seen if isinstance(f, DataFrame)) > 20 << 20


async def test_in_a_crowd_nothing_more_is_written_for_a_peer_that_reads_nothing() -> None:
    async with service(crowd=10) as it, await it.client({WINDOW: LARGE}) as client:
        client.write(client.credit(0, LARGE))
        client.write(*[client.request(number, "/much") for number in range(1, 21, 2)])
        await it.until(lambda: it.running["/much"] + it.ended["/much"] == 10)
        sent = -1
        while sent != it.sent["/much"]:
            sent = it.sent["/much"]
            await asyncio.sleep(0.2)
        client.write(client.request(21))
        assert await client.reset(21) == ErrorCodes.REFUSED_STREAM
        assert it.refused == ["overloaded"]


@pytest.mark.parametrize("window", [0, 10])
async def test_a_reset_ends_the_wait_of_its_sender(it: Service, window: int) -> None:
    async with await it.client({WINDOW: window}) as client:
        client.write(client.request(1, "/much"), client.request(3, "/wait"))
        await client.status(1)
        client.write(client.rst(1))
        await it.until(lambda: it.ended["/much"])
        client.write(client.credit(3, LARGE))
        it.go.set()
        assert b"".join(await client.body(3)) == b"somedone"


async def test_the_end_of_the_connection_ends_every_wait(it: Service) -> None:
    client = await it.client({WINDOW: 0})
    for number in range(1, 41, 2):
        client.write(client.request(number, "/much"))
    await it.until(lambda: it.running["/much"] + it.ended["/much"] == 20)
    await client.status(1)
    await client.close()
    await it.until(lambda: it.ended["/much"] == 20)


async def test_a_broken_connection_ends_every_wait(it: Service) -> None:
    client = await it.client({WINDOW: LARGE})
    client.write(client.credit(0, LARGE))
    for number in range(1, 41, 2):
        client.write(client.request(number, "/much"))
    await it.until(lambda: it.running["/much"] + it.ended["/much"] == 20)
    await client.status(1)
    client.writer.transport.abort()
    await it.until(lambda: it.ended["/much"] == 20)


async def test_an_application_hears_that_its_client_has_gone(it: Service) -> None:
    client = await it.client()
    client.write(client.request(1, "/until-gone"), client.request(3, "/until-gone", end=False))
    await it.until(lambda: it.running["/until-gone"] == 2)
    client.write(client.rst(1))
    await it.until(lambda: it.ended["/until-gone"] == 1)
    await client.close()
    await it.until(lambda: it.ended["/until-gone"] == 2)


async def test_windows_of_one_byte_bring_every_byte(it: Service) -> None:
    it.records = [b"0123456789" * 3]
    async with await it.client({WINDOW: 1}) as client:
        client.write(client.request(1, "/records"))
        got = b""
        while not got.endswith(b"done"):
            got += (await client.expect(DataFrame, 1)).data
            client.write(client.credit(1, 1))
    assert got == it.records[0] + b"done"


async def test_a_window_may_shrink_below_nothing_and_grow_again(it: Service) -> None:
    async with await it.client({WINDOW: 1000}) as client:
        client.write(client.request(1, "/much"))
        assert len((await client.expect(DataFrame, 1)).data) == 1000
        client.write(SettingsFrame(0, settings={WINDOW: 10}), client.credit(1, 500))
        await asyncio.sleep(0.1)
        client.write(SettingsFrame(0, settings={WINDOW: 1010}))
        assert len((await client.expect(DataFrame, 1)).data) == 510


async def test_streams_share_a_narrow_connection_evenly(it: Service) -> None:
    async with await it.client({WINDOW: LARGE}) as client:
        for number in range(1, 41, 2):
            client.write(client.request(number, "/much"))
        got = dict.fromkeys(range(1, 41, 2), 0)
        while sum(got.values()) < 10 << 20:
            frame = await client.expect(DataFrame)
            got[frame.stream_id] += len(frame.data)
            client.write(client.credit(0, max(1, len(frame.data))))
        assert max(got.values()) < 3 * min(got.values())


async def test_a_stream_whose_window_stays_shut_is_reset(it: Service) -> None:
    async with service(unread_s=0.3) as impatient, await impatient.client({WINDOW: 0}) as client:
        client.write(client.request(1, "/much"), client.request(3, "/hold"))
        assert await client.reset(1) == ErrorCodes.CANCEL
        await impatient.until(lambda: impatient.ended["/much"])
        client.write(client.credit(3, 100))
        impatient.go.set()
        assert await client.body(3) == [b"done"]


async def test_a_peer_that_takes_nothing_is_broken_off() -> None:
    async with service(unread_s=0.5) as it:
        client = await it.client({WINDOW: LARGE})
        client.write(client.credit(0, LARGE))
        for number in range(1, 21, 2):
            client.write(client.request(number, "/much"))
        await it.until(lambda: it.ended["/much"] == 10)
        frames = await client.end()
        assert sum(len(f.data) for f in frames if isinstance(f, DataFrame)) < 20 << 20
        await client.close()


@pytest.mark.heavy
async def test_a_peer_that_takes_little_by_little_is_not_broken_off() -> None:
    async with service(unread_s=2) as it, await it.client({WINDOW: 500}) as client:
        it.records = [b"x" * 10_000]
        client.write(client.request(1, "/records"))
        for _ in range(20):
            await asyncio.sleep(0.15)
            await client.expect(DataFrame, 1)
            client.write(client.credit(1, 500))
        assert (await client.body(1))[-1] == b"done"
