import asyncio
import time

import pytest

from tests.e2e.http1 import H1Exchange
from tests.e2e.wire import whole
from tests.serving.http1_world import (
    CLOCK_S,
    GET,
    LAST,
    POST,
    blocking,
    descriptors,
    reset,
    serving,
    statuses,
)


async def test_a_closed_idle_connection_frees_its_descriptor_at_once() -> None:
    async with serving() as it:
        before = descriptors()
        connections = [await it.connect() for _ in range(200)]
        for connection in connections:
            await whole(await connection.send_bytes(GET % (b"echo", b"")))
        began = time.monotonic()
        for connection in connections:
            connection.writer.close()
        while descriptors() > before + 5:
            assert time.monotonic() - began < 10
            await asyncio.sleep(0.01)
        assert len(it.connections) == 0


@pytest.mark.parametrize(
    ("data", "answered"),
    [(b"", []), (GET % (b"echo", b""), [200]), (GET % (b"echo", b"") + b"\r\n", [200])],
    ids=["nothing", "a request", "a request and an empty line"],
)
async def test_a_connection_without_a_request_is_closed(data: bytes, answered: list[int]) -> None:
    async with serving(idle_s=0.3) as it:
        began = time.monotonic()
        assert statuses(await it.talk(data)) == answered
        assert time.monotonic() - began >= 0.25


@pytest.mark.heavy
async def test_a_slow_head_is_refused_after_its_clock() -> None:
    async with serving(idle_s=30) as it:

        async def slowly(data: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(*it.address)
            answer = asyncio.create_task(reader.read())
            for byte in data:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.3)
                if answer.done():
                    break
            writer.close()
            return await answer

        answers = await asyncio.gather(
            it.talk(b"G"), it.talk(GET % (b"echo", b"") + b"GET /"), slowly(LAST)
        )
        assert [statuses(answer) for answer in answers] == [[408], [200, 408], [408]]


@pytest.mark.parametrize("how", ["half-close", "close", "reset"])
async def test_a_client_that_closes_its_side_is_gone(how: str) -> None:
    async with serving() as it:
        connection = await it.connect()
        await connection.write(GET % (b"wait", b""))
        await it.asked()
        if how == "half-close":
            connection.writer.write_eof()
        elif how == "close":
            await connection.close()
        else:
            connection.abort()
        async with asyncio.timeout(CLOCK_S):
            await it.app.seen[0].disconnected.wait()
        await it.settled()
        connection.writer.close()


async def test_a_client_that_closes_before_its_refusal_is_gone() -> None:
    async with serving() as it:
        client = blocking(it.address)
        while not len(it.connections):
            await asyncio.sleep(0.01)
        client.send(b"nonsense\r\n\r\n")
        client.close()  # so that the refusal is answered with a reset
        await it.settled()


async def test_a_client_that_resets_behind_what_it_sent_ahead_is_gone() -> None:
    async with serving() as it:
        connection = await it.connect()
        await connection.write(GET % (b"wait", b"") + b"x" * 100_000)
        await it.asked()
        await asyncio.sleep(0.1)
        connection.abort()
        async with asyncio.timeout(CLOCK_S):
            await it.app.seen[0].disconnected.wait()


async def test_a_client_that_sends_much_and_leaves_is_gone() -> None:
    async with serving() as it:
        await it.talk((GET % (b"echo", b"")) * 50, then_close=True)
        await it.settled()


@pytest.mark.heavy
async def test_an_early_answer_is_read_although_the_upload_goes_on() -> None:
    async with serving() as it:
        data = POST % (b"early", b"content-length: 1000000\r\n")
        answer = await it.talk(data + b"x" * 40_000)
        assert statuses(answer) == [401]


async def test_the_rest_of_an_upload_after_its_answer_is_dropped_and_the_connection_goes_on() -> (
    None
):
    async with serving() as it:
        connection = await it.connect()
        for size in (2, 50_000):
            await connection.write(POST % (b"early", b"content-length: %d\r\n" % size) + b"x")
            assert (await whole(H1Exchange(connection))).status == 401
            await connection.write(b"x" * (size - 1))
        await connection.write(POST % (b"early", b"content-length: 100000\r\n") + b"x")
        assert (await whole(H1Exchange(connection))).status == 401
        await connection.write(b"x" * 90_000)
        async with asyncio.timeout(CLOCK_S):
            assert await connection.reader.read() == b""
        await connection.close()
        assert [record.body for record in it.app.seen] == [b""] * 3


@pytest.mark.parametrize("gone", ["reset", "close"])
async def test_an_answer_that_nobody_reads_waits_and_ends_with_the_connection(gone: str) -> None:
    async with serving() as it:
        client = blocking(it.address)
        client.send(GET % (b"flood", b""))
        await it.asked()
        sent = -1
        while sent != it.app.seen[0].sent or not sent:
            sent = it.app.seen[0].sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 32 * 1_048_576
        if gone == "reset":
            reset(client)
        else:
            client.close()
        await it.settled()
        assert it.app.seen[0].disconnected.is_set()


async def test_a_fault_before_the_answer_is_a_500(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as it:
        assert statuses(await it.talk(GET % (b"raise", b""))) == [500]
    assert "application_fault" in capsys.readouterr().out


async def test_a_fault_in_the_answer_cuts_it_off(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as it:
        answer = await it.talk(GET % (b"break", b""))
        assert answer.endswith(b"4\r\nhalf\r\n")
    assert "application_fault" in capsys.readouterr().out


@pytest.mark.usefixtures("capsys")
async def test_a_fault_in_an_answer_that_ends_with_its_connection_is_a_reset() -> None:
    async with serving() as it:
        with pytest.raises(ConnectionResetError):
            await it.talk(b"GET /break HTTP/1.0\r\n\r\n")


async def test_a_drain_is_told_with_the_next_answer() -> None:
    async with serving() as it:
        connection = await it.connect()
        answer = await whole(await connection.send_bytes(GET % (b"echo", b"")))
        assert answer.header("connection") == ""
        it.connections.drain()
        answer = await whole(await connection.send_bytes(GET % (b"echo", b"")))
        assert answer.header("connection") == "close"
        async with asyncio.timeout(CLOCK_S):
            assert await connection.reader.read() == b""
        await connection.close()


async def test_a_stop_closes_what_is_idle_and_lets_an_answer_end() -> None:
    async with serving() as it:
        idle, busy = await it.connect(), await it.connect()
        await whole(await idle.send_bytes(GET % (b"echo", b"")))
        await busy.write(GET % (b"wait", b""))
        while it.app.paths[-1] != "/wait":
            await asyncio.sleep(0.01)
        it.connections.stop()
        async with asyncio.timeout(CLOCK_S):
            assert await idle.reader.read() == b""
        it.app.gate.set()
        answer = await whole(H1Exchange(busy))
        assert (answer.body, answer.header("connection")) == (b"waited", "close")
        async with asyncio.timeout(CLOCK_S):
            assert await busy.reader.read() == b""
        for connection in (idle, busy):
            await connection.close()
