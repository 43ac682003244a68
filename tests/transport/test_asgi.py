import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import Cancelled, GatewayError, HttpError, PayloadTooLarge
from gateway.messages import Reply
from gateway.transport.asgi import Exchange, ExchangeLimits, Message, decode_segment, request_head

LIMITS = ExchangeLimits(body_bytes=100, body_s=0.2)


class Server:
    """Plays the ASGI server: messages in when told, messages out recorded."""

    def __init__(self, **scope: object) -> None:
        self.scope: Message = {
            "type": "http",
            "method": "POST",
            "path": "/chat",
            "raw_path": b"/chat",
            "query_string": b"",
            "http_version": "1.1",
            "headers": [],
            "client": ("127.0.0.1", 1),
            **scope,
        }
        self.sent: list[Message] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self.parting = False
        self.failure: Exception | None = None
        self.receive_failure: Exception | None = None
        self.limits = LIMITS
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()

    def body(self, data: bytes, *, more: bool = False) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def serve(self, handler: Callable[[Exchange], Awaitable[None]]) -> None:
        async def send(message: Message) -> None:
            self.sent.append(message)
            if self.parting and message.get("more_body") is False:
                self.disconnect()
                await asyncio.sleep(0.05)
            await self.taking.wait()
            if self.failure is not None:
                raise self.failure

        async def receive() -> Message:
            if self.receive_failure is not None:
                raise self.receive_failure
            return await self._incoming.get()

        exchange = Exchange(self.scope, receive, send, self.limits)
        await exchange.run(handler)


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


async def test_a_disconnect_cancels_the_handler() -> None:
    server = Server()
    cancelled = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    server.body(b"")
    serving = asyncio.create_task(server.serve(handler))
    await asyncio.sleep(0.01)
    server.disconnect()
    await asyncio.wait_for(serving, 1)
    assert cancelled.is_set()


async def test_a_handler_that_wants_to_finish_goes_on_without_its_client() -> None:
    server = Server()
    finished = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.cancel_when_gone = False
        await asyncio.sleep(0.05)
        assert exchange.gone
        await exchange.write(b"nobody reads this")
        finished.set()

    server.disconnect()
    await asyncio.wait_for(server.serve(handler), 1)
    assert finished.is_set()
    assert server.sent == []


async def test_an_early_answer_waits_for_the_upload_before_it_ends() -> None:
    server = Server()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(401, (), b"no"))

    serving = asyncio.create_task(server.serve(handler))
    await asyncio.sleep(0.02)
    assert [message["type"] for message in server.sent] == [
        "http.response.start",
        "http.response.body",
    ]
    assert server.sent[-1]["more_body"]
    server.body(b"late", more=True)
    server.body(b"")
    await asyncio.wait_for(serving, 1)
    assert not server.sent[-1]["more_body"]


async def test_cancelling_the_application_reaches_the_handler() -> None:
    server = Server()
    cancelled = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    serving = asyncio.create_task(server.serve(handler))
    await asyncio.sleep(0.01)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert cancelled.is_set()


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


async def test_a_servers_farewell_does_not_cut_the_end_of_an_answer_off() -> None:
    server = Server()
    server.parting = True
    server.body(b"")
    seen: list[bool] = []

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(200, (), b"hi"))
        seen.append(exchange.gone)

    await asyncio.wait_for(server.serve(handler), 1)
    assert seen == [False]


async def test_a_last_message_that_waits_for_a_client_that_has_gone_is_given_up() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        await exchange.start(Reply(200, ()))
        server.taking.clear()
        await exchange.end()

    serving = asyncio.create_task(server.serve(handler))
    await asyncio.sleep(0.01)
    server.disconnect()
    await asyncio.wait_for(serving, 20)
    assert server.sent[-1]["more_body"] is False


async def test_a_handler_that_wants_to_finish_does_not_wait_for_a_client_that_has_gone() -> None:
    server = Server()
    server.body(b"")
    sent: list[int] = []

    async def handler(exchange: Exchange) -> None:
        exchange.cancel_when_gone = False
        await exchange.start(Reply(200, ()))
        server.taking.clear()
        await exchange.write(b"a")
        await exchange.write(b"nobody reads this")
        sent.append(exchange.sent_bytes)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    serving = asyncio.create_task(server.serve(handler))
    await asyncio.sleep(0.01)
    server.disconnect()
    await asyncio.wait_for(serving, 1)
    assert sent == [1]


async def test_a_handler_that_wants_to_finish_can_still_be_cancelled_as_its_client_goes() -> None:
    server = Server()
    server.body(b"")
    tasks: list[asyncio.Task[object] | None] = []

    async def handler(exchange: Exchange) -> None:
        exchange.cancel_when_gone = False
        tasks.append(asyncio.current_task())
        server.taking.clear()
        try:
            await exchange.write(b"a")
        except asyncio.CancelledError:
            tasks.append(None)

    serving = asyncio.create_task(server.serve(handler))
    await asyncio.sleep(0.01)
    server.disconnect()
    task = tasks[0]
    assert task is not None
    task.cancel()
    await asyncio.wait_for(serving, 1)
    assert tasks == [task, None]


@pytest.mark.parametrize("finish", [True, False])
async def test_a_connection_that_the_kernel_gave_up_is_a_client_that_has_gone(finish: bool) -> None:
    server = Server()
    server.failure = TimeoutError(110, "Connection timed out")
    server.body(b"")
    ended: list[bool] = []

    async def handler(exchange: Exchange) -> None:
        exchange.cancel_when_gone = not finish
        await exchange.start(Reply(200, ()))
        await asyncio.sleep(0)
        await exchange.write(b"a")
        ended.append(exchange.gone)

    await asyncio.wait_for(server.serve(handler), 1)
    assert ended == ([True] if finish else [])
    assert len(server.sent) == 1


@pytest.mark.parametrize("declared", ["²", "9" * 5000, "9" * 19])
async def test_a_declared_length_that_python_cannot_read_is_no_fault(declared: str) -> None:
    server = Server(headers=[(b"content-length", declared.encode("latin-1"))])
    server.body(b"")
    outcome = await read_body(server)
    assert isinstance(outcome, bytes | PayloadTooLarge)


@pytest.mark.parametrize(("first", "refused"), [(b"x", True), (b"x" * 5000, False)])
async def test_a_body_has_to_come_at_a_kilobyte_a_second(first: bytes, refused: bool) -> None:
    server = Server()
    server.limits = ExchangeLimits(body_bytes=10_000, body_s=2)
    server.body(first, more=True)
    reading = asyncio.create_task(read_body(server))
    await asyncio.sleep(1.2)  # half of `body_s` is the grace
    server.body(b"y")
    outcome = await reading
    if refused:
        assert isinstance(outcome, HttpError)
        assert outcome.http_status == 408
    else:
        assert outcome == first + b"y"


async def test_what_comes_after_an_early_answer_is_not_kept() -> None:
    server = Server()
    server.limits = ExchangeLimits(body_bytes=1 << 20, body_s=5)

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(401, (), b"no"))

    serving = asyncio.create_task(server.serve(handler))
    await asyncio.sleep(0.01)
    for _ in range(2):  # without an end, and more than the linger allows
        server.body(b"x" * 40_000, more=True)
    await asyncio.wait_for(serving, 1)
    assert server.sent[-1]["more_body"] is False


async def test_a_server_that_cannot_receive_is_a_client_that_has_gone() -> None:
    server = Server()
    server.receive_failure = RuntimeError("the server's own fault")

    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(30)

    await asyncio.wait_for(server.serve(handler), 1)


@pytest.mark.parametrize("finish", [True, False])
async def test_a_server_that_cannot_send_is_a_client_that_has_gone(finish: bool) -> None:
    server = Server()
    server.failure = RuntimeError("the server's own fault")
    server.body(b"")
    ended: list[bool] = []

    async def handler(exchange: Exchange) -> None:
        exchange.cancel_when_gone = not finish
        await exchange.start(Reply(200, ()))
        await asyncio.sleep(0)
        await exchange.write(b"a")
        ended.append(exchange.gone)

    await asyncio.wait_for(server.serve(handler), 1)
    assert ended == ([True] if finish else [])
    assert len(server.sent) == 1


async def test_a_handler_that_raises_before_its_answer_is_answered_for() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        raise RuntimeError("a fault")

    await asyncio.wait_for(server.serve(handler), 1)
    assert server.sent[0]["status"] == 500
    assert server.sent[-1]["more_body"] is False


@pytest.mark.parametrize("taken", [True, False])
async def test_a_fault_that_cannot_even_be_told_stays_inside(taken: bool) -> None:
    server = Server()
    server.body(b"")
    if not taken:
        server.taking.clear()

    def stamp() -> tuple[tuple[str, str], ...]:
        raise RuntimeError("another fault")

    async def handler(exchange: Exchange) -> None:
        exchange.stamp = stamp
        raise RuntimeError("a fault")

    await asyncio.wait_for(server.serve(handler), 20)
    assert server.sent[0]["status"] == 500


async def test_a_handler_that_raises_in_its_answer_leaves_it_without_an_end() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        await exchange.start(Reply(200, ()))
        await exchange.write(b"half")
        raise RuntimeError("a fault")

    await asyncio.wait_for(server.serve(handler), 1)
    assert server.sent[-1]["more_body"] is True


async def test_fields_that_cannot_be_sent_are_no_answer_yet() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        with pytest.raises(UnicodeEncodeError):
            await exchange.start(Reply(200, (("x-name", "\N{SNOWMAN}"),)))
        assert not exchange.answered
        await exchange.reply(Reply(500, (), b""))

    await asyncio.wait_for(server.serve(handler), 1)
    assert server.sent[0]["status"] == 500


async def test_no_task_outlives_the_exchange() -> None:
    server = Server()
    server.body(b"")
    before = asyncio.all_tasks()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(200, (), b"hi"))

    await server.serve(handler)
    assert asyncio.all_tasks() == before
