import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.serving.listeners import ListenError, address, listen, serve
from gateway.transport.asgi import Message, Receive, Send

PIECE = b"x" * 65_536


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            for _ in range(0 if scope["path"] == "/" else 200):
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": scope["http_version"].encode()})


async def app_that_fails_to_start(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no"})


@asynccontextmanager
async def serving(*, unread_s: float = 30, idle_s: float = 30) -> AsyncIterator[socket.socket]:
    stop = asyncio.Event()
    with listen("127.0.0.1:0", unread_s=unread_s) as sock:
        task = asyncio.create_task(serve(app, [sock], stop, idle_s=idle_s))
        try:
            yield sock
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await task


def test_a_port_in_use_is_named_with_its_setting_and_what_to_do() -> None:
    with listen("127.0.0.1:0", unread_s=30) as taken:
        bind = address(taken)
        with pytest.raises(ListenError) as caught:
            listen(bind, unread_s=30, setting="admin.bind")
    assert str(caught.value) == (
        f"cannot listen on {bind} (admin.bind): Address already in use; "
        "stop what uses it or choose another port"
    )


@pytest.mark.parametrize("bind", ["a..b:80", f"{'a' * 70}:80", "192.0.2.1:80"])
def test_an_address_that_is_not_of_this_machine_is_named(bind: str) -> None:
    with pytest.raises(ListenError) as caught:
        listen(bind, unread_s=30)
    said = str(caught.value)
    assert said.startswith(f"cannot listen on {bind} (server.bind): ")
    assert said.endswith("; choose an address of this machine, or 0.0.0.0 for all that it has")


def test_an_address_of_ip_version_6_is_written_in_brackets() -> None:
    try:
        sock = listen("[::1]:0", unread_s=30)
    except ListenError:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert address(sock).startswith("[::1]:")


async def test_http_1_and_http_2_come_in_by_the_same_door() -> None:
    async with serving() as sock:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"server:" not in answer.lower()
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        async with asyncio.timeout(10):
            assert (await reader.readexactly(4))[3] == 4, "a SETTINGS frame"
        writer.close()


async def test_an_idle_connection_is_closed() -> None:
    async with serving(idle_s=0.2) as sock:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_stopping_closes_the_connections_that_are_idle() -> None:
    async with serving() as sock:
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.readuntil(b"0\r\n\r\n")
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_a_server_that_cannot_start_says_so() -> None:
    failure = pytest.raises(Exception, match="Lifespan failure")
    with listen("127.0.0.1:0", unread_s=30) as sock, failure:
        await serve(app_that_fails_to_start, [sock], asyncio.Event(), idle_s=1)


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no such clock")
async def test_a_peer_that_reads_nothing_of_its_answer_is_broken_off() -> None:
    async with serving(unread_s=0.5) as sock:
        loop = asyncio.get_running_loop()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        before = _descriptors()
        await loop.sock_connect(client, sock.getsockname())
        await loop.sock_sendall(client, b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(10):
            while _descriptors() == before:
                await asyncio.sleep(0.01)
            while _descriptors() > before:
                await asyncio.sleep(0.1)
        client.close()


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
