import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.config import key_of
from tests.e2e.http1 import H1Exchange
from tests.e2e.routes import ALL, WIDGET, Chat
from tests.e2e.wire import Request, whole
from tests.e2e.world import World, open_world

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with open_world(tmp_path_factory.mktemp("http1"), tls=True) as opened:
        yield opened
        assert not opened.gateway.noise
        assert not [entry for entry in opened.gateway.records if "exception" in entry]


def expecting(request: Request) -> Request:
    return request.plus(("expect", "100-continue"))


@pytest.mark.parametrize("tls", [False, True])
async def test_leave_to_send_a_body_comes_after_the_credential(world: World, *, tls: bool) -> None:
    world.reply("Hello")
    connection = await world.h1(tls=tls)
    request = expecting(WIDGET.request("expect", "Hi"))
    await connection.write(connection.head_of(request))
    async with asyncio.timeout(10):
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    answer = await whole(await connection.send_bytes(request.body))
    assert (answer.status, answer.ended) == (200, True)
    await connection.close()


@pytest.mark.parametrize("chat", ALL, ids=lambda chat: chat.id)
@pytest.mark.parametrize("status", [401, 413])
async def test_a_refused_request_gets_no_leave(world: World, chat: Chat, status: int) -> None:
    request = chat.request("expect", "Hi", credential="nobody" if status == 401 else None)
    if status == 413:
        request = request.plus(("content-length", "10000000"))
    connection = await world.h1()
    await connection.write(connection.head_of(expecting(request), declare=status == 401))
    async with asyncio.timeout(10):
        answer = await connection.reader.read()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    await connection.close()


@pytest.mark.parametrize("chat", ALL, ids=lambda chat: chat.id)
@pytest.mark.parametrize(
    ("status", "path", "fields"),
    [
        (400, "", (("x_under", "score"),)),
        (414, "?" + "x" * 9000, ()),
        (431, "", tuple((f"x-{number}", "y") for number in range(101))),
        (431, "", (("x-long", "y" * 17_000),)),
    ],
)
async def test_a_head_that_the_application_can_answer_is_answered_in_the_dialect(
    world: World, chat: Chat, status: int, path: str, fields: tuple[tuple[str, str], ...]
) -> None:
    request = chat.request("head", "Hi")
    answer = await world.send(request.to(request.method, request.path + path).plus(*fields))
    assert answer.status == status
    refused = answer.json()
    assert isinstance(refused, dict)
    assert {"hyponema": "detail"}.get(chat.dialect, "error") in refused


@pytest.mark.parametrize("limit", ["target", "fields"])
async def test_a_head_that_is_far_too_long_is_answered_all_the_same(
    world: World, limit: str
) -> None:
    long = "x" * 100_000
    request = (
        Request("GET", f"/{long}") if limit == "target" else Request("GET", "/", (("x", long),))
    )
    answer = await world.send(request)
    assert answer.status == (414 if limit == "target" else 431)
    assert answer.header("connection") == "close"
    assert re.fullmatch("[0-9a-f]{32}", answer.header("x-request-id"))


async def test_what_the_application_never_sees_is_counted_all_the_same(world: World) -> None:
    before = await world.gateway.metrics()
    key = key_of("acme", "widget").encode()  # under pressure no body is read without one
    head = b"POST /chat HTTP/1.1\r\nhost: a\r\nx-api-key: %s\r\ntransfer-encoding: chunked\r\n\r\n"
    chunked = head % key + b"zz\r\n"
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", chunked):
        connection = await world.h1()
        assert (await whole(await connection.send_bytes(data))).status == 400
        await connection.close()
    refused = (await world.gateway.metrics()).since(before)
    assert refused.total("chatgw_refused_total", dialect="other", kind="bad_request") == 3


async def test_turns_sent_ahead_are_answered_in_order(world: World) -> None:
    world.echo(20)
    connection = await world.h1()
    requests = [WIDGET.request(f"ahead-{number}", f"number {number}") for number in range(20)]
    await connection.write(b"".join(connection.head_of(it) + it.body for it in requests))
    for number in range(20):
        answer = await whole(H1Exchange(connection))
        assert f"number {number}".encode() in answer.body
    await connection.close()


async def test_a_half_close_is_a_disconnect(world: World) -> None:
    world.reply_in_two("First", " never")
    connection = await world.h1()
    exchange = await connection.send(WIDGET.request("half", "Hi"))
    await exchange.part()
    connection.writer.write_eof()
    await world.upstream_is_alone()
    await connection.close()


async def test_noise_from_clients_leaves_no_line_that_is_not_a_record(world: World) -> None:
    hostile = [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /chat HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhel",
        b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n" * 3,
    ]
    for data in hostile:
        for address in (world.gateway.public, world.tls):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(10):
                await reader.read()
            writer.close()
    assert (await world.send(Request("GET", "/livez"))).status == 200
