import asyncio

import pytest

from gateway.errors import Cancelled, GatewayError, HttpError, PayloadTooLarge
from gateway.messages import Reply
from gateway.transport.asgi import Exchange, ExchangeLimits, decode_segment, request_head
from tests.transport.asgi_server import BOUND_S, Server


async def read_body(server: Server) -> bytes | GatewayError:
    outcome: list[bytes | GatewayError] = []

    async def handler(exchange: Exchange) -> None:
        exchange.cancel_when_gone = False
        try:
            outcome.append(await exchange.body())
        except GatewayError as error:
            outcome.append(error)

    await server.serve(handler)
    return outcome[0]


async def test_a_body_in_pieces_is_read_whole() -> None:
    server = Server()
    server.body(b"ab", more=True)
    server.body(b"cd", more=True)
    server.body(b"")
    assert await read_body(server) == b"abcd"


async def test_a_body_of_exactly_the_cap_passes() -> None:
    server = Server()
    server.body(b"x" * 100)
    assert await read_body(server) == b"x" * 100


@pytest.mark.parametrize("sizes", [[101], [60, 60], [100, 1]])
async def test_a_body_over_the_cap_is_refused(sizes: list[int]) -> None:
    server = Server()
    for size in sizes:
        server.body(b"x" * size, more=True)
    assert isinstance(await read_body(server), PayloadTooLarge)


async def test_a_declared_length_over_the_cap_is_refused_unread() -> None:
    server = Server(headers=[(b"content-length", b"10000000000")])
    assert isinstance(await read_body(server), PayloadTooLarge)


async def test_a_body_that_does_not_end_in_time_is_refused() -> None:
    server = Server()
    server.body(b"ab", more=True)
    error = await read_body(server)
    assert isinstance(error, HttpError)
    assert error.http_status == 408


async def test_a_client_that_leaves_during_its_body_is_noticed() -> None:
    server = Server()
    server.body(b"ab", more=True)
    server.disconnect()
    assert isinstance(await read_body(server), Cancelled)


async def test_every_answer_is_stamped() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        exchange.stamp = lambda: (("x-request-id", "abc"),)
        await exchange.reply(Reply(200, (("content-type", "text/plain"),), b"hi"))

    await server.serve(handler)
    assert server.sent[0]["headers"] == [
        (b"content-type", b"text/plain"),
        (b"content-length", b"2"),
        (b"x-request-id", b"abc"),
    ]


async def test_the_answer_to_head_has_no_body() -> None:
    server = Server(method="HEAD")
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(200, (), b"hi"))

    await server.serve(handler)
    assert (b"content-length", b"2") in server.sent[0]["headers"]
    assert all(not message.get("body") for message in server.sent)


def test_a_head_keeps_the_raw_path_and_the_repeats_of_a_header() -> None:
    head = request_head(
        Server(
            raw_path=b"/a%2Fb",
            headers=[(b"X-Api-Key", b"1"), (b"x-api-key", b"2")],
            http_version="2",
        ).scope
    )
    assert head.path == "/a%2Fb"
    assert head.headers.all("x-api-key") == ["1", "2"]
    assert head.http_version == "2"


@pytest.mark.parametrize(
    ("segment", "decoded"), [("a%20b", "a b"), ("%C3%A9", "é"), ("%ff", None), ("100%", "100%")]
)
def test_a_path_segment_is_decoded_as_utf_8(segment: str, decoded: str | None) -> None:
    assert decode_segment(segment) == decoded


@pytest.mark.parametrize("declared", ["²", "9" * 5000, "9" * 19])
async def test_a_declared_length_that_python_cannot_read_is_no_fault(declared: str) -> None:
    server = Server(headers=[(b"content-length", declared.encode("latin-1"))])
    server.body(b"")
    outcome = await read_body(server)
    assert isinstance(outcome, bytes | PayloadTooLarge)


@pytest.mark.parametrize(("first", "body_s", "refused"), [(b"x", 2, True), (b"x" * 5000, 4, False)])
async def test_a_body_has_to_come_at_a_kilobyte_a_second(
    first: bytes, body_s: float, refused: bool
) -> None:
    server = Server()
    server.limits = ExchangeLimits(body_bytes=10_000, body_s=body_s)
    server.body(first, more=True)
    reading = asyncio.create_task(read_body(server))
    await asyncio.sleep(0.6 * body_s)  # half of `body_s` is the grace
    server.body(b"y")
    outcome = await reading
    if refused:
        assert isinstance(outcome, HttpError)
        assert outcome.http_status == 408
    else:
        assert outcome == first + b"y"


async def test_an_early_answer_waits_for_no_upload_and_is_one_message() -> None:
    server = Server()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(401, (), b"no"))

    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert server.sent[1:] == [{"type": "http.response.body", "body": b"no", "more_body": False}]
