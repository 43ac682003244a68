"""The attacks. Each says what came of it: the number of tries, and the tries that went wrong.

None of them needs a credential that works, except where a turn has to run first.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from tests.attack.rig import (
    BODY_S,
    IDLE_S,
    LATE_S,
    OUTPUT_BYTES,
    completes,
    resident_bytes,
    serves,
    settles,
)
from tests.e2e.http1 import H1, head_of
from tests.e2e.http2 import H2
from tests.e2e.routes import WIDGET
from tests.e2e.wire import Request, whole
from tests.e2e.world import World
from tests.upstream import openai_stream

CROWD: Final = 40
_MEBIBYTE: Final = 1 << 20


class Outcome(NamedTuple):
    """How often it was tried, and what went wrong, in words; nothing if all is well."""

    tries: int
    wrong: list[str]


def _stranger() -> Request:
    return WIDGET.request("attack", "Hello", credential="not-a-key-of-anyone")


async def early_refusal_http1(world: World) -> Outcome:
    """A 401 on the head alone, with the body's chunks in the same segment; then a good request."""
    wrong = []
    for number in range(10):
        connection = await world.h1()
        head = connection.head_of(_stranger().plus(("transfer-encoding", "chunked")), declare=False)
        refused = await connection.send_bytes(head + b"1\r\nx\r\n" * 15 + b"0\r\n\r\n")
        if (await whole(refused)).status != 401:
            wrong.append(f"try {number}: {refused.answer.status}")
        world.reply("Hello")
        good = await connection.send(WIDGET.request("attack", "Hello"))
        if not await completes(good, "Hello"):
            wrong.append(f"try {number}: the next request got {good.answer.status}")
        await connection.close()
    return Outcome(10, wrong)


async def early_refusal_http2(world: World) -> Outcome:
    """The same in DATA frames, while another stream of the connection is being answered."""
    wrong = []
    gate = world.reply_in_two("First", " second")
    async with await world.h2() as connection:
        sibling = await connection.send(WIDGET.request("attack", "Hello"))
        await sibling.part()
        for number in range(10):
            refused = await connection.send(_stranger().carrying(b""), end=False)
            for index in range(15):
                connection.connection.send_data(refused.number, b"x", end_stream=index == 14)
            await connection.flush()
            answer = await whole(refused)
            if (answer.status, answer.ended) != (401, True):
                wrong.append(f"try {number}: {answer.status}, reset {answer.reset}")
        gate.set()
        if not await completes(sibling, "First second"):
            wrong.append("the other stream was cut")
        world.reply("Hello")
        if not await completes(await connection.send(WIDGET.request("attack", "Hello")), "Hello"):
            wrong.append("the next request on the connection failed")
    return Outcome(10, wrong)


async def late_data_http2(world: World) -> Outcome:
    """A 401, and a third of a second later more of the body, while another stream is answered."""
    wrong = []
    gate = world.reply_in_two("First", " second")
    async with await world.h2() as connection:
        sibling = await connection.send(WIDGET.request("attack", "Hello"))
        await sibling.part()
        for number in range(3):
            refused = await connection.send(_stranger().carrying(b""), end=False)
            if (await refused.head()).status != 401:
                wrong.append(f"try {number}: {refused.answer.status}")
            await asyncio.sleep(0.3)
            await refused.data(b"x" * 100, end=True)
        gate.set()
        if not await completes(sibling, "First second"):
            wrong.append("the other stream was cut")
    return Outcome(3, wrong)


async def leave_http1(world: World) -> Outcome:
    """Clients that go in the middle of a stream, half of them with a TCP reset."""
    for number in range(20):
        world.reply_in_two("First", " never")
        connection = await world.h1()
        exchange = await connection.send(WIDGET.request(f"leave-{number}", "Hello"))
        await exchange.part()
        if number % 2:
            connection.abort()
        else:
            await connection.close()
    return Outcome(20, await _aftermath(world))


async def leave_http2(world: World) -> Outcome:
    """The same by RST_STREAM, with and without a window, and by the end of the connection."""
    for number in range(20):
        world.reply_in_two("First", " never")
        window = 0 if number % 4 == 0 else 65_535
        connection = await H2.connect(world.gateway.public, window=window)
        calls = world.calls
        exchange = await connection.send(WIDGET.request(f"leave-{number}", "Hello"))
        await world.called(calls + 1)
        if window:
            await exchange.part()
        if number % 2:
            await exchange.vanish()
            await asyncio.sleep(0.05)
        await connection.close()
    return Outcome(20, await _aftermath(world))


async def reset_storm(world: World) -> Outcome:
    """Streams that are opened and reset at once, while good clients go on."""
    async with await world.h2() as connection:
        for number in range(200):
            exchange = await connection.send(WIDGET.request(f"storm-{number}", "Hello"))
            await exchange.vanish()
    return Outcome(200, await _aftermath(world))


async def slow_body_http1(world: World) -> Outcome:
    """A byte now and then: the answer comes when the body's clock runs out, or the end."""
    connection = await world.h1()
    request = WIDGET.request("slow", "Hello")
    await connection.write(connection.head_of(request))
    dripping = asyncio.create_task(_drip(connection.write))
    try:
        async with asyncio.timeout(BODY_S + LATE_S):
            data = await connection.reader.read(65_536)
    except TimeoutError:
        return Outcome(1, ["it was waited for without end"])
    finally:
        dripping.cancel()
        await connection.close()
    status = data.split(b" ")[1] if data else b"end"
    return Outcome(1, [] if status in {b"408", b"end"} else [status.decode()])


async def slow_body_http2(world: World) -> Outcome:
    """The same in DATA frames, beside a good stream."""
    wrong = []
    gate = world.reply_in_two("First", " second")
    async with await world.h2() as connection:
        sibling = await connection.send(WIDGET.request("attack", "Hello"))
        await sibling.part()
        slow = await connection.send(WIDGET.request("slow", "").carrying(b""), end=False)
        dripping = asyncio.create_task(_drip(slow.data))
        try:
            async with asyncio.timeout(BODY_S + LATE_S):
                answer = await slow.head()
            if answer.status != 408 and answer.reset is None:
                wrong.append(f"status {answer.status}")
        except TimeoutError:
            wrong.append("it was waited for without end")
        finally:
            dripping.cancel()
        gate.set()
        if not await completes(sibling, "First second"):
            wrong.append("the other stream was cut")
    return Outcome(1, wrong)


async def _drip(send: Callable[[bytes], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(0.2)
        await send(b"{")


async def oversize(world: World) -> Outcome:
    """Bodies over the limit, declared and not, on both versions."""
    statuses: dict[str, int] = {}
    request = WIDGET.request("large", "Hello")
    large = b'{"message":"' + b"x" * 150_000
    connection = await world.h1()
    declared = request.plus(("content-length", "10000000000"))
    exchange = await connection.send_bytes(connection.head_of(declared, declare=False))
    statuses["declared, HTTP/1.1"] = (await whole(exchange)).status
    await connection.close()
    connection = await world.h1()
    head = connection.head_of(request.plus(("transfer-encoding", "chunked")), declare=False)
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large)
    statuses["chunked, HTTP/1.1"] = (await whole(await connection.send_bytes(head + chunk))).status
    await connection.close()
    gate = world.reply_in_two("First", " second")
    async with await world.h2() as second:
        sibling = await second.send(WIDGET.request("attack", "Hello"))
        await sibling.part()
        statuses["HTTP/2"] = (await whole(await second.send(request.carrying(large)))).status
        gate.set()
        good = await completes(sibling, "First second")
    wrong = [f"{name}: {status}" for name, status in statuses.items() if status != 413]
    return Outcome(3, wrong if good else [*wrong, "the other stream was cut"])


async def silent_connections(world: World) -> Outcome:
    """Connections that say nothing, half a head, or no more than HTTP/2's preface.

    Of the last kind Hypercorn waits for more without end, so of those only the cost is judged.
    """
    wrong: list[str] = []
    before = resident_bytes(world)
    async with AsyncExitStack() as stack:
        quiet: list[H1] = []
        for _ in range(CROWD):
            quiet += [await world.h1(), await world.h1()]
            await quiet[-1].write(b"POST /chat HTTP/1.1\r\nhost: x\r\nx-half:")
            await stack.enter_async_context(await world.h2())
        for connection in quiet:
            stack.push_async_callback(connection.close)
        if not await serves(world, 10):
            wrong.append("good clients were not served")
        grown = resident_bytes(world) - before
        if grown > 3 * CROWD * 65_536:
            wrong.append(f"{grown} bytes for {3 * CROWD} connections")
        left = [connection for connection in quiet if not await _is_closed(connection)]
        if left:
            wrong.append(f"{len(left)} of {len(quiet)} were not closed")
    return Outcome(3 * CROWD, wrong)


async def _is_closed(connection: H1) -> bool:
    try:
        async with asyncio.timeout(IDLE_S + LATE_S):
            while await connection.reader.read(65_536):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


async def never_read(world: World) -> Outcome:
    """Clients that ask for a long reply and read none of it, on both versions."""
    wrong: list[str] = []
    before = resident_bytes(world)
    events = openai_stream(["x" * 4000] * (OUTPUT_BYTES // 5000))
    calls = world.calls
    async with AsyncExitStack() as stack:
        for number in range(10):
            world.play(*events)
            stack.callback(_deaf_http1(world, f"deaf-{number}").close)
            world.play(*events)
            connection = await H2.connect(world.gateway.public, window=0)
            stack.push_async_callback(connection.close)
            await connection.send(WIDGET.request(f"deaf-http2-{number}", "Hello"))
        await world.called(calls + 20)
        if not await settles(world):
            wrong.append("turns went on for readers that never read")
        grown = resident_bytes(world) - before
        if grown > 20 * 1.5 * _MEBIBYTE:
            wrong.append(f"{grown / _MEBIBYTE:.1f} MiB for 20 clients")
        if not await serves(world, 4):
            wrong.append("good clients were not served")
    return Outcome(20, wrong)


def _deaf_http1(world: World, session: str) -> socket.socket:
    """A connection with a small window, on which a request was sent and nothing is read."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(world.gateway.public)
    request = WIDGET.request(session, "Hello")
    own.sendall(head_of(request, world.gateway.public) + request.body)
    return own


async def _aftermath(world: World) -> list[str]:
    """What is wrong after clients went; nothing if the gateway has let go of all they had."""
    wrong = []
    if not await settles(world):
        wrong.append("a turn or a call of the model was left over")
    if not await serves(world, 2):
        wrong.append("good clients were not served")
    return wrong


CASES: Final[tuple[Callable[[World], Awaitable[Outcome]], ...]] = (
    early_refusal_http1,
    early_refusal_http2,
    late_data_http2,
    leave_http1,
    leave_http2,
    reset_storm,
    slow_body_http1,
    slow_body_http2,
    oversize,
    silent_connections,
    never_read,
)
