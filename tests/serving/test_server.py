import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.serving.listeners import address, listen
from tests.e2e.config import config, tenant, upstream
from tests.e2e.http1 import H1
from tests.e2e.process import GatewayProcess, clean_environment
from tests.e2e.routes import WIDGET
from tests.e2e.wire import Exchange, whole
from tests.model_streams import openai_chunk
from tests.upstream import Hang, ScriptedUpstream, stream

# Far longer than any test takes: whoever waits for this has not been woken.
LONG_S = 60


class Running:
    """A gateway in a process, with a model that says one word and then nothing more."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Exchange]:
        connection = await H1.connect(self.gateway.public)
        try:
            exchange = await connection.send(WIDGET.request("s", "hi"))
            assert (await exchange.head()).status == 200
            yield exchange
        finally:
            await connection.close()

    async def ready(self) -> int:
        return (await self.gateway.ask(self.gateway.admin, "/readyz")).status

    async def signalled(self, number: signal.Signals) -> None:
        self.gateway.send(number)
        await self.gateway.logged("draining")


@asynccontextmanager
async def running(
    directory: Path, *, notice_s: float = 0, drain_s: float = 0
) -> AsyncIterator[Running]:
    script = stream(openai_chunk({"content": "word"}), Hang())
    async with ScriptedUpstream(script) as scripted:
        patient = upstream(f"{scripted.url}/v1", first_token_s=LONG_S, idle_s=LONG_S)
        server = {"drain_notice_s": notice_s, "drain_s": drain_s}
        gateway = await GatewayProcess(config({"main": patient}, server=server), directory).start()
        try:
            yield Running(gateway)
        finally:
            await gateway.kill()


async def start(directory: Path, settings: dict[str, object], *more: str) -> tuple[int, str]:
    """Exit status and output of a gateway that cannot start."""
    gateway = GatewayProcess(settings, directory, *more)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "serve", "--config", str(gateway.file), *more),
        cwd=directory,
        env=clean_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_gateway_with_0(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path) as it:
        assert await it.ready() == 200
        await it.gateway.stop(number)
        assert it.gateway.records[-1]["event"] == "stopped"
        assert it.gateway.noise == []


async def test_between_the_notice_and_the_drain_turns_still_come(tmp_path: Path) -> None:
    async with running(tmp_path, notice_s=LONG_S) as it:
        await it.signalled(signal.SIGTERM)
        assert await it.ready() == 503
        async with it.asking():
            pass


async def test_an_interrupt_gives_no_notice_and_a_turn_is_told(tmp_path: Path) -> None:
    async with running(tmp_path, notice_s=LONG_S, drain_s=0.2) as it:
        async with it.asking() as exchange:
            await it.signalled(signal.SIGINT)
            answer = await whole(exchange)
        assert answer.ended
        assert answer.body.endswith(b'{"type":"error","error":"Internal server error"}\n')
        assert await it.gateway.wait() == 0


@pytest.mark.parametrize("notice_s", [0, LONG_S])
async def test_a_second_signal_ends_the_wait(tmp_path: Path, notice_s: float) -> None:
    async with running(tmp_path, notice_s=notice_s, drain_s=LONG_S) as it:
        async with it.asking() as exchange:
            began = time.monotonic()
            await it.signalled(signal.SIGTERM)
            it.gateway.send(signal.SIGTERM)
            answer = await whole(exchange)
        assert answer.ended
        assert answer.body.endswith(b'{"type":"error","error":"Internal server error"}\n')
        assert await it.gateway.wait() == 0
        assert time.monotonic() - began < LONG_S / 2


async def test_what_cannot_listen_says_where_and_ends_with_1(tmp_path: Path) -> None:
    with listen("127.0.0.1:0", unread_s=30) as taken:
        bind = address(taken)
        settings = config({"main": upstream("http://127.0.0.1:9/v1")}, server={"bind": [bind]})
        status, output = await start(tmp_path, settings)
    assert status == 1
    assert output == (
        f"gateway: cannot listen on {bind} (server.bind): Address already in use; "
        "stop what uses it or choose another port\n"
    )


async def test_a_demo_that_cannot_be_kept_says_why_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    settings = config({"main": upstream("http://127.0.0.1:9/v1")})
    status, output = await start(tmp_path, settings, "--demo")
    assert status == 1
    assert output.startswith("gateway: cannot write var/demo.json: ")
    assert output.count("\n") == 1


async def test_a_store_that_cannot_be_opened_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = config({"main": upstream("http://127.0.0.1:9/v1")}, store="sqlite:file/gateway.db")
    status, output = await start(tmp_path, settings)
    assert status == 1
    assert output.startswith("gateway: ")
    assert output.count("\n") == 1


async def test_without_any_credential_it_does_not_start(tmp_path: Path) -> None:
    nobody = {"acme": tenant("acme", keys={}, dialects={"helper": {}})}
    settings = config({"main": upstream("http://127.0.0.1:9/v1")}, tenants=nobody)
    status, output = await start(tmp_path, settings)
    assert status == 2
    assert "gateway keys new" in output
