import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.messages import Reply, RequestHead
from gateway.serving.connections import Connections
from gateway.serving.listeners import listen, serve
from tests.e2e.frames import Frames
from tests.e2e.http1 import H1
from tests.e2e.wire import Address, whole
from tests.serving.http1_world import CLOCK_S, GET, POST, App, statuses

BUSY = b'{"error":"busy"}'


class Guard:
    """Refuses every path that begins with `/no`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.shedding = True
        self.heads: list[RequestHead] = []

    def refusal(self, head: RequestHead, peer: str | None) -> Reply | None:
        assert peer == "127.0.0.1"
        self.heads.append(head)
        if not head.path.startswith("/no"):
            return None
        return Reply(503, (("retry-after", "1"), ("x-request-id", "r1")), BUSY)


class World:
    def __init__(self, address: Address) -> None:
        self.address = address
        self.app = App()
        self.guard = Guard()
        self.connections = Connections()
        self.refused: list[str] = []


@asynccontextmanager
async def guarded(*, unread_s: float = 30) -> AsyncIterator[World]:
    stop = asyncio.Event()
    with listen("127.0.0.1:0", unread_s=unread_s) as sock:
        world = World(Address(*sock.getsockname()))
        task = asyncio.create_task(
            serve(
                world.app,
                [sock],
                stop,
                idle_s=30,
                connections=world.connections,
                refused=world.refused.append,
                gate=world.guard,
            )
        )
        try:
            yield world
        finally:
            stop.set()
            async with asyncio.timeout(CLOCK_S):
                await task


async def everything(address: Address, data: bytes) -> bytes:
    """What a connection answers to these bytes, up to its end."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    try:
        async with asyncio.timeout(CLOCK_S):
            return await reader.read()
    finally:
        writer.close()


async def test_a_refused_request_is_answered_without_the_application() -> None:
    async with guarded() as world:
        connection = await H1.connect(world.address)
        sent = POST % (b"no", b"content-length: 5\r\nX-Key: k\r\n") + b"hello"
        answer = await whole(await connection.send_bytes(sent))
        assert (answer.status, answer.body) == (503, BUSY)
        assert answer.header("retry-after") == "1"
        assert answer.header("x-request-id") == "r1"
        assert answer.header("connection") == ""
        assert world.app.seen == []
        assert world.guard.heads[0].method == "POST"
        assert world.guard.heads[0].headers.get("x-key") == "k"
        await connection.close()


async def test_the_connection_of_a_refused_request_serves_the_next_one() -> None:
    async with guarded() as world:
        connection = await H1.connect(world.address)
        refused = POST % (b"no?q=1", b"content-length: 5\r\n") + b"hello"
        for data, status in ((refused, 503), (GET % (b"echo", b""), 200), (refused, 503)):
            assert (await whole(await connection.send_bytes(data))).status == status
        assert world.app.paths == ["/echo"]
        assert world.guard.heads[0].query == "q=1"
        await connection.close()


async def test_what_was_sent_ahead_of_a_refusal_is_answered_and_what_comes_after_it_is_not() -> (
    None
):
    async with guarded() as world:
        served = GET % (b"parts", b"")
        refused = POST % (b"no", b"content-length: 5\r\n") + b"hello"
        answers = await everything(world.address, served + served + refused + served)
        assert statuses(answers) == [200, 200, 503]
        assert world.app.paths == ["/parts", "/parts"]


@pytest.mark.parametrize(
    "field", [b"Content-Length\x0b: 60", b"Transfer-Encoding\x0b: chunked", b"content length: 5"]
)
async def test_a_name_that_is_none_hides_no_second_request_behind_a_refusal(field: bytes) -> None:
    async with guarded() as world:
        sent = POST % (b"no", field + b"\r\n") + GET % (b"echo", b"")
        assert statuses(await everything(world.address, sent)) == [400]
        assert world.app.seen == []


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (b"content-length: 100\r\n", b"only some"),
        (b"content-length: 100\r\nexpect: 100-continue\r\n", b""),
        (b"content-length: 99999999999999999999\r\n", b"x"),
        (b"transfer-encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        (b"connection: keep-alive, close\r\n", b""),
    ],
)
async def test_a_connection_ends_whose_refused_request_is_not_there_whole(
    fields: bytes, body: bytes
) -> None:
    async with guarded() as world:
        sent = POST % (b"no", fields) + body
        answer = await everything(world.address, sent)
        assert statuses(answer) == [503]
        assert b"connection: close" in answer
        assert answer.endswith(BUSY)


async def test_a_refused_request_of_http_1_0_ends_its_connection() -> None:
    async with guarded() as world:
        answer = await everything(world.address, b"GET /no HTTP/1.0\r\n\r\n")
        assert statuses(answer) == [503]


async def test_whoever_sends_ahead_without_reading_is_cut_off() -> None:
    async with guarded(unread_s=0.5) as world:
        reader, writer = await asyncio.open_connection(*world.address, limit=1)
        refused = GET % (b"no", b"") * 1000
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                writer.write(refused)
                await writer.drain()
                sent += len(refused)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flood(), CLOCK_S)
        assert sent < 20_000_000  # of which the system's own buffers take some
        assert not reader.at_eof()
        writer.close()


async def test_nobody_is_judged_while_nothing_is_shed() -> None:
    async with guarded() as world:
        world.guard.shedding = False
        connection = await H1.connect(world.address)
        assert (await whole(await connection.send_bytes(GET % (b"no", b"")))).status == 200
        assert world.guard.heads == []
        await connection.close()


async def test_a_refusal_says_that_a_draining_server_closes() -> None:
    async with guarded() as world:
        connection = await H1.connect(world.address)
        await whole(await connection.send_bytes(GET % (b"echo", b"")))
        world.connections.drain()
        answer = await whole(await connection.send_bytes(GET % (b"no", b"")))
        assert (answer.status, answer.header("connection")) == (503, "close")
        assert await connection.reader.read() == b""
        await connection.close()


async def test_a_stream_of_http_2_is_refused_and_its_neighbour_served() -> None:
    async with guarded() as world, await Frames.open(world.address) as client:
        client.write(
            client.request(1, "/no"),
            client.request(3, "/echo"),
            client.request(5, "/no", method="POST", end=False),
            client.data(5, b"hello", end=True),
        )
        assert await client.status(1) == "503"
        assert b"".join(await client.body(1)) == BUSY
        assert client.fields[1]["retry-after"] == "1"
        assert await client.status(5) == "503"
        assert b"".join(await client.body(5)) == BUSY
        assert await client.status(3) == "200"
        assert world.app.paths == ["/echo"]
        assert world.guard.heads[0].http_version == "2"


async def test_a_refusal_that_does_not_fit_its_window_has_no_body() -> None:
    async with guarded() as world:
        client = await Frames.open(world.address, settings={4: 3})
        async with client:
            for number in range(1, 401, 2):
                client.write(client.request(number, "/no"))
                assert await client.status(number) == "503"
                assert await client.body(number) == []


async def test_a_stream_that_is_refused_and_reset_in_one_read_harms_no_other() -> None:
    async with guarded() as world, await Frames.open(world.address) as client:
        client.write(
            client.request(1, "/wait"), client.request(3, "/no"), client.rst(3), client.request(5)
        )
        assert await client.status(5) == "200"
        world.app.gate.set()
        assert await client.status(1) == "200"


async def test_a_refused_upload_of_another_length_is_counted_once() -> None:
    async with guarded() as world, await Frames.open(world.address) as client:
        client.write(client.request(1, "/no", ("content-length", "5"), method="POST", end=False))
        assert await client.status(1) == "503"
        client.write(client.data(1, b"abc", end=True), client.request(3))
        assert await client.status(3) == "200"
        assert world.refused == []
