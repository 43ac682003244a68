import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.serving.listeners import listen, serve
from gateway.serving.tls import CertificateError, server_context
from tests.e2e.http1 import H1
from tests.e2e.routes import STREAMING, WIDGET, Chat
from tests.e2e.tls import CERTIFICATE, client_context
from tests.e2e.wire import Address, Request, whole
from tests.e2e.world import TLS_PROTOCOLS, World, open_world, read
from tests.serving.test_listeners import app

HERE = Path(__file__).parent / "certificates"
EXPIRED = HERE / "expired.pem"
ENCRYPTED = HERE / "encrypted_key.pem"
IDLE_S = 0.3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with open_world(tmp_path_factory.mktemp("tls"), tls=True) as opened:
        yield opened
        assert not opened.gateway.noise


@asynccontextmanager
async def serving(idle_s: float = IDLE_S) -> AsyncIterator[Address]:
    stop = asyncio.Event()
    context = server_context(CERTIFICATE, CERTIFICATE)
    with listen("127.0.0.1:0", unread_s=30) as sock:
        served = serve(app, [], stop, idle_s=idle_s, secure=[sock], tls=context)
        task = asyncio.create_task(served)
        try:
            yield Address(*sock.getsockname())
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await task


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("protocol", TLS_PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=lambda chat: chat.id)
async def test_a_turn_under_tls(module_world: World, chat: Chat, protocol: str) -> None:
    module_world.reply("Hello", " there")
    answer = await module_world.ask(chat, "Hi", protocol=protocol)
    assert read(chat, answer).text == "Hello there"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_other_listener_stays_open(module_world: World) -> None:
    module_world.reply("Hello")
    assert (await module_world.ask(WIDGET, "Hi")).status == 200


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (("h2", "http/1.1"), "h2"),
        (("http/1.1", "h2"), "h2"),
        (("http/1.1",), "http/1.1"),
        (("spdy/3",), None),
        ((), None),
    ],
)
async def test_alpn(module_world: World, offered: tuple[str, ...], chosen: str | None) -> None:
    _, writer = await asyncio.open_connection(*module_world.tls, ssl=client_context(*offered))
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
    assert writer.get_extra_info("compression") is None
    writer.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_without_alpn_it_is_http_1(module_world: World) -> None:
    connection = await H1.connect(module_world.tls, client_context())
    answer = await whole(await connection.send(Request("GET", "/livez")))
    assert answer.status == 200
    await connection.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_version_that_is_spoken(module_world: World, version: ssl.TLSVersion) -> None:
    context = client_context("http/1.1")
    context.minimum_version = context.maximum_version = version
    connection = await H1.connect(module_world.tls, context)
    said = connection.writer.get_extra_info("ssl_object")
    assert said.version() == version.name.replace("_", ".")
    assert "GCM" in said.cipher()[0]
    await connection.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1"])
async def test_an_old_version_is_refused(module_world: World, name: str) -> None:
    context = client_context("http/1.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion[name]
    with pytest.raises(OSError):  # asyncio sends no alert: the connection just ends
        await H1.connect(module_world.tls, context)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("flag", "version"), [("--http2", "2"), ("--http1.1", "1.1")])
async def test_curl(module_world: World, flag: str, version: str) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    module_world.reply("Hello", apart=True)
    request = WIDGET.request("curl", "Hi")
    command = [curl, "-sS", "-N", flag, "--cacert", str(module_world.ca_file)]
    command += [word for name, value in request.headers for word in ("-H", f"{name}: {value}")]
    command += ["-d", request.body.decode(), "-w", "%{http_version}"]
    ran = await asyncio.create_subprocess_exec(
        *command, f"{module_world.tls_url}{request.path}", stdout=subprocess.PIPE
    )
    async with asyncio.timeout(20):
        output, _ = await ran.communicate()
    *lines, said = output.decode().splitlines()
    assert said == version
    assert [json.loads(line)["type"] for line in lines] == ["start", "token", "done"]


@pytest.mark.asyncio(loop_scope="module")
async def test_http_2_is_spoken_only_where_alpn_chose_it(module_world: World) -> None:
    connection = await module_world.h1(tls=True)
    answer = await whole(await connection.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    assert answer.status == 505
    await connection.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_bytes_that_are_not_tls_end_the_connection_and_nothing_else(
    module_world: World,
) -> None:
    for greeting in (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 400):
        reader, writer = await asyncio.open_connection(*module_world.tls)
        writer.write(greeting)
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()
    assert (await module_world.send(Request("GET", "/livez"), protocol="h2-tls")).status == 200


async def test_a_connection_without_a_handshake_is_closed() -> None:
    async with serving() as address:
        reader, writer = await asyncio.open_connection(*address)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_half_a_handshake_is_closed() -> None:
    async with serving() as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(_client_hello()[:60])
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
async def test_a_handshake_and_nothing_more_is_closed(alpn: str) -> None:
    async with serving() as address:
        reader, writer = await asyncio.open_connection(*address, ssl=client_context(alpn))
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_a_client_that_never_says_goodbye_does_not_hold_the_gateway(tmp_path: Path) -> None:
    async with open_world(tmp_path, tls=True) as world:
        client = await asyncio.to_thread(_mute_client, world.tls)
        began = time.monotonic()
        await world.gateway.stop()
        assert time.monotonic() - began < 10
        client.close()


@pytest.mark.parametrize("told", ["by a signal", "by the file"])
async def test_a_new_certificate_is_served_without_a_turn_being_cut(
    tmp_path: Path, told: str
) -> None:
    pair = tmp_path / "pair.pem"
    shutil.copy(CERTIFICATE, pair)
    files = {"certificate": str(pair), "private_key": str(pair)}
    server, clocks = {**files, "drain_s": 40}, {"idle_s": 60, "total_s": 90}
    async with open_world(tmp_path, tls=True, server=server, clocks=clocks) as world:
        gate = world.reply_in_two("First", " second")
        async with world.asking(WIDGET, "Hi", protocol="h1-tls") as exchange:
            await exchange.part()
            shutil.copy(EXPIRED, pair)
            if told == "by a signal":
                world.gateway.send(signal.SIGHUP)
            async with asyncio.timeout(30):
                while await _served(world.tls) != _certificate(EXPIRED):
                    await asyncio.sleep(0.1)
            gate.set()
            answer = await whole(exchange)
        assert read(WIDGET, answer).text == "First second"


async def _served(address: Address) -> str:
    return await asyncio.to_thread(ssl.get_server_certificate, (address.host, address.port))


def _certificate(pair: Path) -> str:
    return pair.read_text().partition("-----END PRIVATE KEY-----\n")[2]


def _mute_client(address: Address) -> socket.socket:
    """A connection under TLS whose other side gets no answer to its close_notify."""
    plain = socket.create_connection(address, timeout=10)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context("h2").wrap_bio(incoming, outgoing, server_hostname="localhost")
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            plain.sendall(outgoing.read())
            incoming.write(plain.recv(65_536))
    plain.sendall(outgoing.read())
    return plain


def test_old_versions_compression_and_renegotiation_are_off() -> None:
    context = server_context(CERTIFICATE, CERTIFICATE)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    options = context.options
    assert options & ssl.OP_NO_COMPRESSION
    assert options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize(
    ("certificate", "private_key"),
    [(CERTIFICATE, EXPIRED), (CERTIFICATE, ENCRYPTED), (HERE / "none.pem", EXPIRED)],
)
def test_a_pair_that_went_bad_since_it_was_checked_is_named(
    certificate: Path, private_key: Path
) -> None:
    with pytest.raises(CertificateError, match=f"{certificate.name} and .*{private_key.name}: "):
        server_context(certificate, private_key)


async def test_a_new_context_serves_the_certificate_that_is_there_by_then(tmp_path: Path) -> None:
    file = tmp_path / "pair.pem"
    seen = []
    for pair in (CERTIFICATE, EXPIRED):
        shutil.copy(pair, file)
        context = server_context(file, file)
        with listen("127.0.0.1:0", unread_s=30) as sock:
            stop = asyncio.Event()
            task = asyncio.create_task(serve(app, [], stop, idle_s=5, secure=[sock], tls=context))
            seen.append(await _served(Address(*sock.getsockname())))
            stop.set()
            await task
    assert seen == [_certificate(CERTIFICATE), _certificate(EXPIRED)]
