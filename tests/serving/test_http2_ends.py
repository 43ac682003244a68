import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.e2e.frames import PREFACE, Frames
from tests.e2e.tls import client_context
from tests.e2e.wire import CLOCK_S, Address
from tests.serving.rig import Service, service

EVERY_STREAM = 2**31 - 1


@pytest.fixture
async def it() -> AsyncIterator[Service]:
    async with service() as running:
        yield running


def credit_of(client: Frames) -> int:
    """What the server has given for the connection."""
    updates = [frame for frame in client.seen if isinstance(frame, WindowUpdateFrame)]
    return sum(frame.window_increment for frame in updates if not frame.stream_id)


@pytest.mark.parametrize("path", ["/raise-late", "/short"])
async def test_an_answer_that_its_application_does_not_end_is_reset(it: Service, path: str) -> None:
    async with await it.client() as client:
        client.write(client.request(1, path))
        assert await client.status(1) == "200"
        assert await client.reset(1) == ErrorCodes.INTERNAL_ERROR
        client.write(client.request(3))
        assert await client.body(3) == [b"done"]


@pytest.mark.parametrize("end", [True, False])
async def test_an_application_that_dies_before_its_answer_gets_a_500(
    it: Service, end: bool
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/raise", end=end))
        assert await client.status(1) == "500"
        client.write(client.request(3))
        assert await client.body(3) == [b"done"]


async def test_what_comes_for_an_answered_request_is_dropped_and_its_window_given_back(
    it: Service,
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/wait"))
        await client.status(1)
        for number in range(3, 103, 2):
            client.write(client.request(number, method="POST", end=False))
            assert await client.body(number) == [b"done"]
            client.write(client.data(number, b"x" * 16_384), client.data(number, b"x" * 16_384))
            client.write(client.data(number, b"late", end=True))
        client.write(PingFrame(0, b"all read"))
        while not isinstance(await client.read(), PingFrame):
            pass
        # 1.6 MB have come; without credit for them the window of 1 MiB would be shut by now.
        assert credit_of(client) > 983_041 + (1 << 20)
        it.go.set()
        assert (await client.body(1))[-1] == b"done"


@pytest.mark.parametrize("leave", ["reset", "answer"])
async def test_what_an_application_never_reads_is_given_back(it: Service, leave: str) -> None:
    async with await it.client() as client:
        for number in range(1, 61, 2):
            client.write(client.request(number, "/hold", method="POST", end=False))
            client.write(*[client.data(number, b"x" * 16_000)] * 3)
            if leave == "reset":
                client.write(client.rst(number))
        it.go.set()
        client.write(PingFrame(0, b"all read"))
        await client.expect(PingFrame)
        await it.until(lambda: it.running["/hold"] == 0)
        client.write(PingFrame(0, b"all gone"))
        await client.expect(PingFrame)
        # Of 1.4 MB, up to half a window may be given back later.
        assert credit_of(client) > 983_041 + (1 << 19)


async def test_an_upload_that_goes_on_after_its_answer_is_reset_without_an_error(
    it: Service,
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, method="POST", end=False))
        assert await client.body(1) == [b"done"]
        for _ in range(5):
            client.write(client.data(1, b"x" * 16_384))
        assert await client.reset(1) == ErrorCodes.NO_ERROR
        for _ in range(100):  # what was on its way meets silence
            client.write(client.data(1, b"late"))
        client.write(client.request(3))
        assert await client.body(3) == [b"done"]
        assert [f for f in client.seen if isinstance(f, RstStreamFrame)][1:] == []


@pytest.mark.heavy
async def test_an_upload_that_stands_still_after_its_answer_is_reset_without_an_error(
    it: Service,
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, method="POST", end=False))
        assert await client.body(1) == [b"done"]
        assert await client.reset(1) == ErrorCodes.NO_ERROR


async def test_early_answers_to_small_parts_of_a_body_harm_nobody(it: Service) -> None:
    async with await it.client() as client:
        client.write(
            client.request(1, method="POST", end=False),
            *[client.data(1, b"x") for _ in range(15)],
            client.request(3),
        )
        assert await client.body(3) == [b"done"]


async def test_a_drain_lets_streams_finish_and_new_ones_come_until_the_second_goaway(
    it: Service,
) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/wait"))
        await client.status(1)
        it.connections.drain()
        first = await client.goaway()
        assert (first.last_stream_id, first.error_code) == (EVERY_STREAM, 0)
        client.write(client.request(3))
        assert await client.body(3) == [b"done"]
        second = await client.goaway()
        assert (second.last_stream_id, second.error_code) == (3, 0)
        client.write(client.request(5))
        assert await client.reset(5) == ErrorCodes.REFUSED_STREAM
        assert it.refused == ["draining"]
        it.go.set()
        assert await client.body(1) == [b"done"]
        assert await client.end() == []


async def test_a_drain_closes_idle_connections_after_its_second_goaway(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1))
        await client.body(1)
        it.connections.drain()
        it.connections.drain()
        ends = [frame for frame in await client.end() if isinstance(frame, GoAwayFrame)]
        assert [frame.last_stream_id for frame in ends] == [EVERY_STREAM, 1]


async def test_a_drain_can_wait_for_a_quiet_moment(it: Service) -> None:
    async with await it.client() as busy, await it.client() as rested:
        busy.write(busy.request(1, "/wait"))
        await busy.status(1)
        rested.write(rested.request(1))
        await rested.body(1)
        it.connections.drain(quiet_s=60)
        assert (await rested.goaway()).last_stream_id == EVERY_STREAM
        busy.write(busy.request(3))
        assert await busy.body(3) == [b"done"]
        assert not [frame for frame in busy.seen if isinstance(frame, GoAwayFrame)]
        it.go.set()
        assert await busy.body(1) == [b"done"]
        assert (await busy.goaway()).last_stream_id == EVERY_STREAM


async def test_a_drain_is_told_with_the_end_of_the_last_answer(it: Service) -> None:
    async with await it.client() as client:
        it.connections.drain(quiet_s=60)
        client.write(client.request(1, "/linger"))
        assert await client.body(1) == [b"done"]
        assert (await client.goaway()).last_stream_id == EVERY_STREAM
        assert it.running["/linger"] == 1
        it.go.set()


async def test_a_drain_waits_for_the_first_stream_of_a_connection_but_not_for_long(
    it: Service,
) -> None:
    it.connections.drain(quiet_s=0.3)
    async with await it.client() as late, await it.client() as silent:
        late.write(late.request(1))
        assert await late.body(1) == [b"done"]
        for client in (late, silent):
            assert (await client.goaway()).last_stream_id == EVERY_STREAM
    async with await it.client() as busy:
        busy.write(busy.request(1, "/wait"))
        await busy.status(1)
        assert (await busy.goaway()).last_stream_id == EVERY_STREAM
        it.go.set()
        assert await busy.body(1) == [b"done"]


async def test_a_connection_that_comes_while_draining_is_told_so_and_served(it: Service) -> None:
    it.connections.drain()
    async with await it.client() as client:
        client.write(client.request(1))
        assert (await client.goaway()).last_stream_id == EVERY_STREAM
        assert isinstance(client.seen[0], SettingsFrame)
        assert await client.body(1) == [b"done"]


async def test_a_stop_closes_idle_connections_at_once_and_others_when_they_are_idle(
    it: Service,
) -> None:
    idle, busy = await it.client(), await it.client()
    busy.write(busy.request(1, "/wait"))
    await busy.status(1)
    await it.until(lambda: len(it.connections) == 2)
    it.connections.stop()
    assert isinstance((await idle.end())[-1], GoAwayFrame)
    assert (await busy.goaway()).last_stream_id == 1
    it.go.set()
    assert await busy.body(1) == [b"done"]
    assert await busy.end() == []
    await idle.close()
    await busy.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_slow_reader_gets_the_end_of_its_answer_after_a_stop(*, tls: bool) -> None:
    async with service(tls=tls, narrow=True) as it:
        it.records = [b"x" * 1000] * 30
        context = client_context("h2") if tls else None
        client = await asyncio.to_thread(narrow_client, it.address, context)
        with client:
            await it.until(lambda: it.ended["/records"])
            it.connections.stop()
            await asyncio.sleep(1.5)
            answer = await asyncio.to_thread(rest_of, client)
        assert answer.count(it.records[0]) == 30
        assert b"done" in answer


def narrow_client(address: Address, tls: ssl.SSLContext | None) -> socket.socket:
    """A client that has asked for `/records`, and of which the system reads little ahead."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(CLOCK_S)
    client.connect(address)
    if tls is not None:
        client = tls.wrap_socket(client, server_hostname=address.host)
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/records"), (":authority", "a")]
    request = HeadersFrame(1, Encoder().encode(fields), flags=["END_HEADERS", "END_STREAM"])
    client.sendall(PREFACE + SettingsFrame(0).serialize() + request.serialize())
    return client


def rest_of(client: socket.socket) -> bytes:
    """What comes until the connection is closed."""
    parts = []
    while part := client.recv(65_536):
        parts.append(part)
    return b"".join(parts)


async def test_a_client_that_says_goaway_gets_its_answers_before_the_end(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/wait"))
        await client.status(1)
        client.write(GoAwayFrame(0, last_stream_id=0))
        client.write(PingFrame(0, b"still on"))
        await client.expect(PingFrame)
        it.go.set()
        assert (await client.body(1))[-1] == b"done"
        await client.end()


async def test_thousands_of_requests_leave_a_long_answer_whole(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1, "/wait"))
        await client.status(1)
        for start in range(3, 3003, 60):
            client.write(*[client.request(number) for number in range(start, start + 60, 2)])
            for number in range(start, start + 60, 2):
                await client.expect(HeadersFrame, number)
        it.go.set()
        assert (await client.body(1))[-1] == b"done"
        assert not [frame for frame in client.seen if isinstance(frame, GoAwayFrame)]


async def test_a_head_has_no_body_and_ends(it: Service) -> None:
    async with await it.client() as client:
        client.write(client.request(1, method="HEAD"))
        assert await client.body(1) == []
        assert not [f for f in client.seen if isinstance(f, DataFrame) and f.data]


@pytest.mark.parametrize(
    "block",
    [b"\xff\xff\xff\x0f", b"\x82\x20\x84\x86\x41\x01a"],
    ids=["no such field", "a table size behind a field"],
)
async def test_a_header_block_that_cannot_be_decoded_ends_the_connection(
    it: Service, block: bytes
) -> None:
    async with await it.client() as client:
        client.write(HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]))
        frame = (await client.end())[-1]
        assert isinstance(frame, GoAwayFrame)
        assert frame.error_code == ErrorCodes.COMPRESSION_ERROR


async def test_bytes_of_another_protocol_end_the_connection(it: Service) -> None:
    reader, writer = await asyncio.open_connection(*it.address)
    client = Frames(it.address, reader, writer)
    client.write(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + bytes(100))
    frames = await client.end()
    assert isinstance(frames[-1], GoAwayFrame)
    assert frames[-1].error_code == ErrorCodes.PROTOCOL_ERROR
    await client.close()
