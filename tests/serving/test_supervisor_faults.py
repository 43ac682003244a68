import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.config import config, upstream
from tests.e2e.http1 import H1
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import WIDGET
from tests.e2e.wire import whole
from tests.e2e.world import open_world, read
from tests.serving.test_supervisor import PATIENCE_S, fleet

pytestmark = pytest.mark.timeout(180)

NOBODY = {"main": upstream("http://127.0.0.1:9/v1")}
# As `gateway serve`, with less patience.
IMPATIENT = """
import sys
from pathlib import Path
from gateway.serving.child import Patience
from gateway.serving.reload import Source
from gateway.serving.server import run
source = Source(Path(sys.argv[1]), {})
patience = Patience(start_s=float(sys.argv[2]), wedged_s=3.0, kill_s=1.0)
sys.exit(run(source.load().settings, source, demo=False, patience=patience))
"""

# As `gateway serve`, but the first configuration that is tried later raises what nobody expects.
SURPRISED = """
import sys
from pathlib import Path
from gateway.serving.reload import Source
from gateway.serving.server import run
class Surprising(Source):
    surprises = [RuntimeError("a surprise")]
    def load(self):
        if self.surprises:
            raise self.surprises.pop()
        return super().load()
file = Path(sys.argv[1])
sys.exit(run(Source(file, {}).load().settings, Surprising(file, {}), demo=False))
"""


@asynccontextmanager
async def impatient(directory: Path, start_s: float = 30) -> AsyncIterator[GatewayProcess]:
    """A gateway that kills a worker which gives no sign of life for three seconds."""
    gateway = GatewayProcess(config(NOBODY), directory)
    gateway.command = [sys.executable, "-c", IMPATIENT, str(gateway.file), str(start_s)]
    try:
        yield gateway
    finally:
        if gateway.children():
            await gateway.kill()


async def test_a_wedged_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    async with impatient(tmp_path) as gateway:
        await gateway.start()
        before = await gateway.workers()
        os.kill(before[0], signal.SIGSTOP)
        (lost,) = await gateway.logged("worker_lost")
        assert (lost["process"], lost["how"]) == (before[0], "wedged")
        async with asyncio.timeout(PATIENCE_S):
            while not (now := await gateway.workers()):
                await asyncio.sleep(0.05)
        assert now[0] != before[0]
        assert await gateway.total("chatgw_worker_restarts_total", reason="wedged") == 1
        await gateway.stop()


async def test_a_start_can_be_broken_off_although_a_worker_is_wedged(tmp_path: Path) -> None:
    async with impatient(tmp_path) as gateway:
        start = asyncio.create_task(gateway.start())
        process = await first_child(gateway)
        os.kill(process, signal.SIGSTOP)
        await until_handles(gateway, signal.SIGTERM)
        gateway.send(signal.SIGTERM)
        assert await gateway.exited() == 0
        await asyncio.wait([start])
        assert isinstance(start.exception(), AssertionError)
        assert not gateway.children()
        assert gateway.records == []


async def first_child(gateway: GatewayProcess) -> int:
    """The first worker that the gateway starts, once it runs its own program."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await asyncio.sleep(0.01)
            with suppress(AssertionError, OSError):
                text = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text()
                child = int(text.split()[0]) if text else gateway.pid
                if b"gateway.serving.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child


async def until_handles(gateway: GatewayProcess, number: signal.Signals) -> None:
    """Waits until the gateway catches the signal (the mask `SigCgt` of its status)."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = Path(f"/proc/{gateway.pid}/status").read_text()
            mask = int(status.partition("SigCgt:")[2].split()[0], 16)
            if mask >> (number - 1) & 1:
                return
            await asyncio.sleep(0.01)


async def test_a_worker_that_never_listens_ends_the_start(tmp_path: Path) -> None:
    async with impatient(tmp_path, start_s=0.01) as gateway:
        with pytest.raises(AssertionError, match="did not listen"):
            await gateway.start()
        assert await gateway.wait() == 1
        (line,) = gateway.noise
        assert line.startswith("gateway: a worker ended while it started (")


async def test_while_others_serve_a_start_that_fails_is_tried_again(tmp_path: Path) -> None:
    async with fleet(tmp_path) as world:
        gateway = world.gateway
        before = await gateway.workers()
        store = tmp_path / "gateway.db"
        store.rename(tmp_path / "aside.db")
        store.mkdir()
        os.kill(before[1], signal.SIGKILL)
        killed, failed = (await gateway.logged("worker_lost", 2))[:2]
        assert (killed["how"], failed["how"]) == ("SIGKILL", "status 1")
        assert "gateway.db" in str(failed["why"])
        assert (await gateway.ask(gateway.admin, "/readyz")).status == 200
        store.rmdir()
        (tmp_path / "aside.db").rename(store)
        async with asyncio.timeout(PATIENCE_S):
            while (await gateway.workers()).keys() != {0, 1}:
                await asyncio.sleep(0.05)
        assert (await gateway.workers())[0] == before[0]
        assert await gateway.total("chatgw_worker_restarts_total", reason="start") >= 1
        await gateway.stop()


async def test_a_reload_that_fails_unforeseen_is_told_and_not_the_last(tmp_path: Path) -> None:
    gateway = GatewayProcess(config(NOBODY), tmp_path)
    gateway.command = [sys.executable, "-c", SURPRISED, str(gateway.file)]
    try:
        await gateway.start()
        gateway.send(signal.SIGHUP)
        await gateway.logged("reload_fault")
        gateway.send(signal.SIGHUP)
        await gateway.logged("reloaded")
        assert await gateway.total("chatgw_config_reloads_total", result="failed") == 1
    finally:
        if gateway.children():
            await gateway.kill()


async def test_nobody_reads_the_log_and_turns_go_on(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        gateway = world.gateway
        with gateway.unread():
            for number in range(60):
                world.reply(f"Reply {number}")
                answer = await world.ask(WIDGET, "Hello")
                assert read(WIDGET, answer).text == f"Reply {number}"
            await gateway.eventually("chatgw_turns_total", 60)
            gateway.send(signal.SIGTERM)
            assert await gateway.exited() == 0


async def test_too_many_connections_are_shed_and_told_once_a_second(tmp_path: Path) -> None:
    async with open_world(tmp_path, limits={"connection_idle_s": 60}) as world:
        gateway = world.gateway
        (process,) = (await gateway.workers()).values()
        early = await world.h1()
        resource.prlimit(process, resource.RLIMIT_NOFILE, (96, 96))
        began = time.monotonic()
        held = [await H1.connect(gateway.public) for _ in range(150)]
        await gateway.logged("out_of_descriptors")
        # Calls of the model need descriptors too, and strangers may not have them all.
        world.reply("Spared")
        answer = await whole(await early.send(WIDGET.request("early", "Hello")))
        assert read(WIDGET, answer).text == "Spared"
        await early.close()
        assert (await gateway.ask(gateway.admin, "/readyz")).status == 200
        world.reply("A descriptor was left")
        turn = await whole(await held[0].send(WIDGET.request("one", "Hello")))
        assert turn.status in (200, 503), turn.text
        await asyncio.sleep(1)
        told = await gateway.logged("out_of_descriptors")
        assert len(told) <= time.monotonic() - began + 1
        loud = [it for it in gateway.records if it["level"] in ("error", "critical")]
        assert len(loud) <= time.monotonic() - began + 1
        for connection in held:
            connection.abort()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                world.forget_replies()
                world.reply("Recovered")
                try:
                    answer = await world.ask(WIDGET, "Hello")
                    if read(WIDGET, answer).text == "Recovered":
                        break
                except (OSError, EOFError, AssertionError):
                    await asyncio.sleep(0.1)
        assert gateway.noise == []


async def test_the_demo_shows_its_curls_once_and_leaves_nobody_behind(tmp_path: Path) -> None:
    settings = config(NOBODY, server={"workers": 2}, store=f"sqlite:{tmp_path / 'g.db'}")
    gateway = GatewayProcess(settings, tmp_path, "--demo")
    try:
        await gateway.start()
        before = await gateway.workers()
        async with asyncio.timeout(PATIENCE_S):
            while "\n".join(gateway.noise).count("curl -N -X") < 4:
                await asyncio.sleep(0.02)
        shown = list(gateway.noise)
        gateway.send(signal.SIGHUP)
        await gateway.logged("reloaded")
        assert not set(before.values()) & set((await gateway.workers()).values())
        assert gateway.noise == shown
        # A terminal's Ctrl-C comes to every process of the group.
        os.killpg(gateway.pid, signal.SIGINT)
        assert await gateway.wait() == 0
        assert not gateway.children()
        assert gateway.noise == shown
    finally:
        if gateway.children():
            await gateway.kill()
