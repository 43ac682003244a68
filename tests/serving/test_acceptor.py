import asyncio
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from gateway.serving.acceptor import AT_ONCE, Acceptor
from gateway.serving.listeners import listen
from gateway.serving.tls import server_context
from tests.e2e.tls import CERTIFICATE, client_context

CLOCK_S = 10.0


class Seen(asyncio.Protocol):
    """Counts connections and greets each."""

    def __init__(self, opened: list[asyncio.BaseTransport]) -> None:
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened.append(transport)
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"hi")


class Door:
    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None, handshake_s: float) -> None:
        self.address = sock.getsockname()
        self.opened: list[asyncio.BaseTransport] = []
        self.acceptor = Acceptor(
            sock, lambda: Seen(self.opened), tls=tls, handshake_s=handshake_s, goodbye_s=1
        )

    async def count(self, number: int) -> None:
        async with asyncio.timeout(CLOCK_S):
            while len(self.opened) < number:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def door(*, tls: bool = False, handshake_s: float = CLOCK_S) -> AsyncIterator[Door]:
    it = Door(
        listen("127.0.0.1:0", unread_s=30),
        server_context(CERTIFICATE, CERTIFICATE) if tls else None,
        handshake_s,
    )
    try:
        yield it
    finally:
        it.acceptor.close()
        for transport in it.opened:
            transport.close()
        await asyncio.sleep(0.05)


@contextmanager
def clients(address: tuple[str, int], number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(address, timeout=CLOCK_S))
            for _ in range(number)
        ]


async def test_a_round_of_the_loop_takes_many_connections() -> None:
    async with door() as it:
        with clients(it.address, AT_ONCE):
            rounds = 0
            while len(it.opened) < AT_ONCE:
                await asyncio.sleep(0)
                rounds += 1
            assert rounds <= 10


async def test_more_than_a_round_takes_are_taken_in_the_next_ones() -> None:
    async with door() as it:
        with clients(it.address, 3 * AT_ONCE + 1) as sockets:
            await it.count(len(sockets))
            assert all(client.recv(2) == b"hi" for client in sockets)


async def test_a_closed_door_takes_nobody_and_what_is_open_stays() -> None:
    async with door() as it:
        with clients(it.address, 1) as (client,):
            await it.count(1)
            it.acceptor.close()
            it.acceptor.close()
            await asyncio.sleep(0.05)
            assert client.recv(2) == b"hi"
            try:
                late = socket.create_connection(it.address, timeout=1)
            except ConnectionRefusedError:
                return
            late.close()
            raise AssertionError("the socket still listens")


async def test_without_descriptors_it_waits_and_then_goes_on() -> None:
    async with door() as it:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with clients(it.address, 1) as (client,):
            highest = client.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            try:
                await asyncio.sleep(0.1)
                assert it.opened == []
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await it.count(1)


async def test_descriptors_that_are_kept_for_calls_are_not_taken_by_and_by() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with door() as it:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with clients(it.address, 4):
            lowest = os.dup(0)
            os.close(lowest)
            limit = lowest
            while limit - limit // 8 < lowest:
                limit += 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                await asyncio.sleep(1)
                assert len(it.opened) == 1
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            it.acceptor.close()
            await asyncio.sleep(0.5)
            assert len(it.opened) == 1
    assert faults == []


async def test_a_handshake_that_does_not_come_is_given_up() -> None:
    async with door(tls=True, handshake_s=0.3) as it:
        with clients(it.address, 1) as (client,):
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(CLOCK_S):
                assert await loop.sock_recv(client, 1) == b""
        assert it.opened == []


async def test_a_handshake_of_another_kind_ends_only_its_own_connection() -> None:
    async with door(tls=True) as it:
        with clients(it.address, 1) as (client,):
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            reader, writer = await asyncio.open_connection(
                *it.address, ssl=client_context("http/1.1")
            )
            async with asyncio.timeout(CLOCK_S):
                assert await reader.readexactly(2) == b"hi"
            writer.close()
        assert len(it.opened) == 1


async def test_a_handshake_under_way_goes_on_when_the_door_is_closed() -> None:
    async with door(tls=True) as it:
        with clients(it.address, 1) as (client,):
            async with asyncio.timeout(CLOCK_S):
                while not it.acceptor.opening:
                    await asyncio.sleep(0.005)
                it.acceptor.close()
                reader, writer = await asyncio.open_connection(
                    sock=client, ssl=client_context("http/1.1"), server_hostname="127.0.0.1"
                )
                assert await reader.readexactly(2) == b"hi"
                writer.close()
                await writer.wait_closed()


async def test_a_handshake_under_way_is_broken_off_when_there_is_no_time_left() -> None:
    async with door(tls=True) as it:
        with clients(it.address, 1) as (client,):
            async with asyncio.timeout(CLOCK_S):
                while not it.acceptor.opening:
                    await asyncio.sleep(0.005)
            it.acceptor.close()
            it.acceptor.break_off()
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(CLOCK_S):
                assert await loop.sock_recv(client, 1) == b""
