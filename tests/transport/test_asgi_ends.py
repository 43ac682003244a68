import asyncio

import pytest

from gateway.messages import Reply
from gateway.transport.asgi import Exchange
from tests.transport.asgi_server import BOUND_S, Server


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
    await asyncio.wait_for(serving, BOUND_S)
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
    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert finished.is_set()
    assert server.sent == []


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


async def test_a_servers_farewell_does_not_cut_the_end_of_an_answer_off() -> None:
    server = Server()
    server.parting = True
    server.body(b"")
    seen: list[bool] = []

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(200, (), b"hi"))
        seen.append(exchange.gone)

    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert seen == [False]


@pytest.mark.heavy
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
    await asyncio.wait_for(serving, BOUND_S)
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
    await asyncio.wait_for(serving, BOUND_S)
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
    await asyncio.wait_for(serving, BOUND_S)
    assert tasks == [task, None]


@pytest.mark.parametrize(
    "failure",
    [TimeoutError(110, "Connection timed out"), RuntimeError("the server's own fault")],
    ids=["the kernel gave it up", "a fault"],
)
@pytest.mark.parametrize("finish", [True, False])
async def test_a_server_that_cannot_send_is_a_client_that_has_gone(
    finish: bool, failure: Exception
) -> None:
    server = Server()
    server.failure = failure
    server.body(b"")
    ended: list[bool] = []

    async def handler(exchange: Exchange) -> None:
        exchange.cancel_when_gone = not finish
        await exchange.start(Reply(200, ()))
        await asyncio.sleep(0)
        await exchange.write(b"a")
        ended.append(exchange.gone)

    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert ended == ([True] if finish else [])
    assert len(server.sent) == 1


async def test_a_server_that_cannot_receive_is_a_client_that_has_gone() -> None:
    server = Server()
    server.receive_failure = RuntimeError("the server's own fault")

    async def handler(exchange: Exchange) -> None:
        await asyncio.sleep(30)

    await asyncio.wait_for(server.serve(handler), BOUND_S)


async def test_a_handler_that_raises_before_its_answer_is_answered_for() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        raise RuntimeError("a fault")

    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert server.sent[0]["status"] == 500
    assert server.sent[-1]["more_body"] is False


@pytest.mark.heavy
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

    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert server.sent[0]["status"] == 500


async def test_a_handler_that_raises_in_its_answer_leaves_it_without_an_end() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        await exchange.start(Reply(200, ()))
        await exchange.write(b"half")
        raise RuntimeError("a fault")

    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert server.sent[-1]["more_body"] is True


async def test_fields_that_cannot_be_sent_are_no_answer_yet() -> None:
    server = Server()
    server.body(b"")

    async def handler(exchange: Exchange) -> None:
        with pytest.raises(UnicodeEncodeError):
            await exchange.start(Reply(200, (("x-name", "\N{SNOWMAN}"),)))
        assert not exchange.answered
        await exchange.reply(Reply(500, (), b""))

    await asyncio.wait_for(server.serve(handler), BOUND_S)
    assert server.sent[0]["status"] == 500


async def test_no_task_outlives_the_exchange() -> None:
    server = Server()
    server.body(b"")
    before = asyncio.all_tasks()

    async def handler(exchange: Exchange) -> None:
        await exchange.reply(Reply(200, (), b"hi"))

    await server.serve(handler)
    assert asyncio.all_tasks() == before
