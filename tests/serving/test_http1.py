import asyncio
import re
from random import Random

import pytest

from tests.e2e.http1 import H1Exchange
from tests.e2e.wire import whole
from tests.serving.http1_world import (
    CLOCK_S,
    GET,
    LAST,
    POST,
    serving,
    statuses,
)

# Requests and answers.


@pytest.mark.parametrize(
    ("fields", "framed"),
    [
        (b"content-length: 5\r\n", b"hello"),
        (
            b"transfer-encoding: chunked\r\n",
            b"2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\ntrailer: x\r\n\r\n",
        ),
        (b"Transfer-Encoding: Chunked\r\n", b"0000005\r\nhello\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_and_its_echo_and_then_another_request(fields: bytes, framed: bytes) -> None:
    async with serving() as it:
        for cut in (None, 1, -1, -3):
            connection = await it.connect()
            data = POST % (b"echo", fields) + framed
            await connection.write(data[:cut])
            if cut is not None:
                await asyncio.sleep(0.02)
                await connection.write(data[cut:])
            answer = await whole(H1Exchange(connection))
            assert (answer.status, answer.body) == (200, b"hello")
            again = await whole(await connection.send_bytes(GET % (b"echo", b"")))
            assert (again.status, again.body) == (200, b"")
            await connection.close()


async def test_each_body_message_is_one_chunk() -> None:
    async with serving() as it:
        connection = await it.connect()
        answer = await whole(await connection.send_bytes(GET % (b"parts", b"")))
        assert answer.parts == [b"one", b"two", b"three"]
        assert answer.ended
        await connection.close()


@pytest.mark.parametrize(
    ("request_line", "body"),
    [
        (b"GET /length", b"12345"),
        (b"HEAD /length", b""),
        (b"HEAD /parts", b""),
        (b"GET /nothing", b""),
    ],
)
async def test_an_answer_without_chunks(request_line: bytes, body: bytes) -> None:
    async with serving() as it:
        data = request_line + b" HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        _, _, sent = (await it.talk(data)).partition(b"\r\n\r\n")
        assert sent == body


async def test_an_old_client_gets_no_chunks_and_a_close() -> None:
    async with serving() as it:
        answer = await it.talk(b"GET /parts HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"\r\n\r\nonetwothree")
        assert b"transfer-encoding" not in answer.lower()


async def test_a_head_says_what_it_has_to() -> None:
    async with serving() as it:
        answer = (await it.talk(LAST)).lower()
        assert answer.startswith(b"http/1.1 200 ok\r\n")
        assert b"\r\ndate: " in answer
        assert b"\r\nconnection: close\r\n" in answer
        assert b"\r\nserver: " not in answer


async def test_an_absolute_target_is_served_by_its_path() -> None:
    async with serving() as it:
        data = b"GET http://A/echo?x=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        assert statuses(await it.talk(data)) == [200]
        scope = it.app.seen[0].scope
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
            *("/echo", b"/echo"),
            b"x=1",
        )


async def test_empty_lines_before_a_request_are_passed_over() -> None:
    async with serving() as it:
        assert statuses(await it.talk(b"\r\n\r\n" + LAST)) == [200]


# What is refused.


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (
            POST % (b"echo", b"content-length: 5\r\ntransfer-encoding: chunked\r\n") + b"0\r\n\r\n",
            400,
        ),
        (POST % (b"echo", b"content-length: 5\r\ncontent-length: 5\r\n") + b"hello", 400),
        (POST % (b"echo", b"content-length: 5\r\ncontent-length: 6\r\n") + b"hello", 400),
        (POST % (b"echo", b"Transfer-Encoding : chunked\r\n") + b"0\r\n\r\n", 400),
        (POST % (b"echo", b"transfer-encoding: gzip, chunked\r\n") + b"0\r\n\r\n", 501),
        (GET % (b"echo", b"x-folded: a\r\n b\r\n"), 400),
        (b"GET /echo HTTP/1.1\nhost: a\n\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET http://b/echo HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 400),
        (b"GET /echo HTTP/3.0\r\nhost: a\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (GET % (b"echo", b"x: " + b"x" * 40_000 + b"\r\n"), 431),
        (GET % (b"echo", b"a:b\r\n" * 300), 431),
    ],
)
async def test_a_request_that_is_refused_ends_the_connection_and_nothing_runs(
    data: bytes, status: int
) -> None:
    async with serving() as it:
        answer = await it.talk(data + LAST)
        assert statuses(answer) == [status]
        assert answer.endswith(b'"}')
        assert b"\r\nconnection: close\r\n" in answer
        assert b"\r\nx-request-id: " in answer
        assert it.app.seen == []


@pytest.mark.parametrize(
    "framed",
    [
        b"0x1\r\nx\r\n0\r\n\r\n",
        b"+1\r\nx\r\n0\r\n\r\n",
        b"-1\r\nx\r\n0\r\n\r\n",
        b" 1\r\nx\r\n0\r\n\r\n",
        b"1\nx\n0\n\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1\r\nx0\r\n\r\n",
        b"\r\n0\r\n\r\n",
        b"fffffffffffffffffffff\r\nx",
        b"1;" + b"x" * 40_000,
        b"1\r\nx\r\n" * 9000 + b"0\r\n\r\n",
        b"1;a\r=b\r\nx\r\n0\r\n\r\n",
        b"1\r\nx\r\n0\r\n\n",
        b"1\r\nx\r\n0\r\na: b\nc: d\r\n\r\n",
        b"1\r\nx\r\n0\r\na: b\r\n folded\r\n\r\n",
    ],
)
async def test_a_malformed_chunk_ends_the_connection_and_the_request(framed: bytes) -> None:
    head = POST % (b"echo", b"transfer-encoding: chunked\r\n")
    async with serving() as it:
        assert statuses(await it.talk(head + framed + LAST)) in ([400], [431])
        connection = await it.connect()
        await connection.write(head)
        await it.asked()
        await connection.write(framed + LAST)
        async with asyncio.timeout(CLOCK_S):
            assert statuses(await connection.reader.read()) in ([400], [431])
        await connection.close()
        await it.settled()
        assert it.app.paths == ["/echo"]
        assert it.app.seen[0].disconnected.is_set()


async def test_an_answer_under_way_is_not_followed_by_a_refusal() -> None:
    async with serving() as it:
        connection = await it.connect()
        await connection.write(POST % (b"early", b"transfer-encoding: chunked\r\n"))
        exchange = H1Exchange(connection)
        assert (await whole(exchange)).status == 401
        await connection.write(b"nonsense\r\n" + LAST)
        async with asyncio.timeout(CLOCK_S):
            assert await connection.reader.read() == b""
        assert it.app.paths == ["/early"]
        await connection.close()


async def test_an_upgrade_to_http_2_is_ignored() -> None:
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    async with serving() as it:
        answers = await it.talk(GET % (b"first", upgrade) + LAST)
        assert statuses(answers) == [200, 200]
        assert it.app.paths == ["/first", "/last"]


async def test_an_upgrade_to_a_websocket_is_ignored() -> None:
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    key = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    async with serving() as it:
        answers = await it.talk(GET % (b"first", upgrade + key) + LAST)
        assert statuses(answers) == [200, 200]
        assert [record.scope["type"] for record in it.app.seen] == ["http", "http"]


async def test_http_2_begins_a_connection_or_not_at_all() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    async with serving() as it:
        reader, writer = await asyncio.open_connection(*it.address)
        for byte in preface:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        async with asyncio.timeout(CLOCK_S):
            assert (await reader.readexactly(4))[3] == 4, "a SETTINGS frame"
        writer.close()
        assert statuses(await it.talk(GET % (b"first", b"") + preface)) == [200, 505]


async def test_a_length_that_no_body_has() -> None:
    async with serving() as it:
        data = POST % (b"echo", b"content-length: " + b"9" * 5000 + b"\r\n")
        assert statuses(await it.talk(data)) == [400]


async def test_whatever_is_sent_the_server_goes_on() -> None:
    # The fixture fails if anything was left open, or the event loop complained of anything.
    good = [
        GET % (b"echo?a=b", b"x: y\r\n"),
        POST % (b"echo", b"content-length: 5\r\n") + b"hello",
        POST % (b"echo", b"transfer-encoding: chunked\r\n") + b"2\r\nhe\r\n0\r\nx: y\r\n\r\n",
        POST % (b"early", b"expect: 100-continue\r\ncontent-length: 3\r\n"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5),
    ]
    random = Random(1)
    async with serving(idle_s=0.5) as it:

        async def send_damaged() -> None:
            data = bytearray(b"".join(random.choices(good, k=random.randint(1, 4))))
            for _ in range(random.randint(1, 3)):
                at = random.randrange(len(data))
                data[at : at + random.randint(0, 3)] = random.choice(
                    [b"", b"\r\n", b"\n", b"\0", b":", b" ", b"\xff", b"0", b"chunked", b"\r\n\r\n"]
                )
            reader, writer = await asyncio.open_connection(*it.address)
            writer.write(data)
            await asyncio.sleep(0.01)
            if random.random() < 0.5:
                writer.write_eof()
                async with asyncio.timeout(CLOCK_S):
                    await reader.read()
            writer.close()

        for _ in range(30):
            await asyncio.gather(*(send_damaged() for _ in range(20)))
        assert statuses(await it.talk(LAST)) == [200]


# One after another.


async def test_requests_sent_ahead_are_answered_in_order() -> None:
    async with serving() as it:
        ahead = [
            POST % (b"%d" % number, b"content-length: 2\r\n") + b"%02d" % number
            for number in range(50)
        ]
        answers = await it.talk(b"".join(ahead) + LAST)
        assert statuses(answers) == [200] * 51
        assert re.findall(rb"2\r\n([0-9]{2})\r\n", answers) == [b"%02d" % n for n in range(50)]


async def test_what_follows_a_malformed_request_never_runs() -> None:
    async with serving() as it:
        bad = b"GET /bad HTTP/1.1\r\nhost : a\r\n\r\n"
        answers = await it.talk(GET % (b"first", b"") + bad + LAST)
        assert statuses(answers) == [200, 400]
        assert it.app.paths == ["/first"]


async def test_a_request_waits_until_the_one_before_it_is_answered() -> None:
    async with serving() as it:
        connection = await it.connect()
        await connection.write(GET % (b"wait", b"") + LAST)
        await it.asked()
        await asyncio.sleep(0.1)
        assert it.app.paths == ["/wait"]
        it.app.gate.set()
        assert (await whole(H1Exchange(connection))).body == b"waited"
        assert (await whole(H1Exchange(connection))).status == 200
        await connection.close()


@pytest.mark.parametrize("end", ["goes on", "reset"])
async def test_what_is_sent_ahead_is_bounded(end: str) -> None:
    request = POST % (b"echo", b"content-length: 60000\r\n") + b"x" * 60_000
    async with serving() as it:
        connection = await it.connect()
        connection.writer.write(GET % (b"wait", b"") + request * 150)
        await it.asked()
        await asyncio.sleep(0.5)
        assert connection.writer.transport.get_write_buffer_size() > 1_000_000
        assert it.app.paths == ["/wait"]
        if end == "reset":
            connection.abort()
        it.app.gate.set()
        if end == "reset":
            await it.settled()
            return
        for _ in range(151):
            assert (await whole(H1Exchange(connection))).status == 200
        await connection.close()


# Leave to send a body.


async def test_leave_is_given_when_the_body_is_wanted() -> None:
    async with serving() as it:
        connection = await it.connect()
        fields = b"content-length: 5\r\nexpect: 100-continue\r\n"
        await connection.write(POST % (b"echo", fields))
        async with asyncio.timeout(CLOCK_S):
            leave = await connection.reader.readuntil(b"\r\n\r\n")
        assert leave == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = await whole(await connection.send_bytes(b"hello"))
        assert (answer.status, answer.body) == (200, b"hello")
        again = await whole(await connection.send_bytes(GET % (b"echo", b"")))
        assert again.status == 200
        await connection.close()


async def test_no_leave_is_given_for_a_body_that_nobody_wants() -> None:
    async with serving() as it:
        answer = await it.talk(
            POST % (b"early", b"content-length: 5\r\nexpect: 100-continue\r\n"), then_close=False
        )
        assert statuses(answer) == [401]
        assert b"\r\nconnection: close\r\n" in answer.lower()


async def test_no_leave_is_needed_once_the_body_comes() -> None:
    async with serving() as it:
        fields = b"content-length: 5\r\nexpect: 100-continue\r\nconnection: close\r\n"
        assert statuses(await it.talk(POST % (b"echo", fields) + b"hello")) == [200]
