import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.http1 import H1
from tests.e2e.process import GatewayProcess, Samples
from tests.e2e.routes import HYPERLEAP, HYPONEMA, WIDGET
from tests.e2e.wire import Exchange, shown
from tests.e2e.world import World, open_world, read

pytestmark = pytest.mark.timeout(180)

PATIENCE_S = 60.0


@asynccontextmanager
async def fleet(
    directory: Path, workers: int = 2, *, drain_s: float = 60, notice_s: float = 0
) -> AsyncIterator[World]:
    """A world with so many workers; it need not end well."""
    server = {"workers": workers, "drain_s": drain_s, "drain_notice_s": notice_s}
    store = f"sqlite:{directory / 'gateway.db'}"
    limits = {"connection_idle_s": 1}
    # Turns wait for what a busy machine may take long for.
    clocks = {"first_token_s": 120, "idle_s": 120, "total_s": 240}
    async with open_world(
        directory, store=store, server=server, limits=limits, clocks=clocks, turn_s=240
    ) as world:
        try:
            yield world
        finally:
            if world.gateway.children():
                await world.gateway.kill()


async def until_replaced(gateway: GatewayProcess, before: dict[int, int]) -> dict[int, int]:
    """Waits until other processes are in all the places."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            now = await gateway.workers()
            if now.keys() == before.keys() and not set(now.values()) & set(before.values()):
                return now
            await asyncio.sleep(0.05)


async def until_gone(*processes: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while any(Path(f"/proc/{process}").exists() for process in processes):
            await asyncio.sleep(0.05)


async def stream(world: World, stack: AsyncExitStack) -> tuple[Exchange, asyncio.Event]:
    """A stream that has shown its first word and waits for the event to show its last."""
    gate = world.reply_in_two("First", " last")
    exchange = await stack.enter_async_context(world.asking(WIDGET, "Hello"))
    await shown(exchange, "First")
    return exchange, gate


async def test_a_killed_worker_is_replaced_and_harms_no_other(tmp_path: Path) -> None:
    async with fleet(tmp_path) as world, AsyncExitStack() as stack:
        before = await world.gateway.workers()
        streams = [await stream(world, stack) for _ in range(6)]
        turns = await world.gateway.total("chatgw_turns_total")
        assert await world.gateway.total("chatgw_turns_in_flight") == 6
        began = time.monotonic()
        os.kill(before[0], signal.SIGKILL)
        lost = (await world.gateway.logged("worker_lost"))[0]
        assert (lost["worker"], lost["process"], lost["how"]) == (0, before[0], "SIGKILL")
        async with asyncio.timeout(PATIENCE_S):
            while len(now := await world.gateway.workers()) < 2:
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 20
        assert now[1] == before[1]
        assert now[0] != before[0]
        for _, gate in streams:
            gate.set()
        answers = await asyncio.gather(*(_rest(exchange) for exchange, _ in streams))
        good = sum(text == "First last" for text in answers)
        assert good == 6 - int(str(lost["turns_lost"]))
        await world.gateway.eventually("chatgw_turns_total", turns + 6)
        assert await world.gateway.total("chatgw_turns_in_flight") == 0
        gone = await world.gateway.total("chatgw_turns_total", outcome="worker_lost")
        assert gone == lost["turns_lost"]
        assert await world.gateway.total("chatgw_worker_restarts_total", reason="signal") == 1
        world.reply("Still here")
        assert read(WIDGET, await world.ask(WIDGET, "Hello")).text == "Still here"
        await world.gateway.stop()


async def _rest(exchange: Exchange) -> str | None:
    """The text of a widget stream that ended well."""
    try:
        while await exchange.part() is not None:
            pass
    except (OSError, EOFError, AssertionError):
        return None
    if not exchange.answer.ended:
        return None
    return read(WIDGET, exchange.answer).text


async def test_workers_that_keep_dying_end_the_gateway(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as world:
        killed: set[int] = set()
        async with asyncio.timeout(2 * PATIENCE_S):
            while len(killed) < 5:
                for process in (await world.gateway.workers()).values():
                    if process not in killed:
                        killed.add(process)
                        os.kill(process, signal.SIGKILL)
                await asyncio.sleep(0.02)
        assert await world.gateway.wait() == 1
        line = "gateway: 5 workers died within 60 s, the last one by SIGKILL"
        assert world.gateway.noise == [line]
        assert not world.gateway.children()


async def test_the_death_of_all_workers_at_once_is_no_loop(tmp_path: Path) -> None:
    async with fleet(tmp_path, 5) as world:
        before = await world.gateway.workers()
        for process in before.values():
            os.kill(process, signal.SIGKILL)
        await world.gateway.logged("worker_lost", 5)
        async with asyncio.timeout(PATIENCE_S):
            while len(now := await world.gateway.workers()) < 5:
                await asyncio.sleep(0.05)
        assert not {*now.values()} & {*before.values()}
        await world.gateway.stop()


async def test_streams_of_all_workers_finish_after_sigterm(tmp_path: Path) -> None:
    async with fleet(tmp_path) as world, AsyncExitStack() as stack:
        streams = [await stream(world, stack) for _ in range(8)]
        processes = list((await world.gateway.workers()).values())
        world.gateway.send(signal.SIGTERM)
        await world.gateway.logged("draining", 2)
        kept = await world.gateway.ask(world.gateway.admin, "/readyz")
        assert kept.status == 503
        assert await world.gateway.total("chatgw_draining") == 1
        answer = await world.ask(HYPONEMA, "Too late")
        assert answer.status == 503
        assert int(answer.header("retry-after")) >= 1
        for _, gate in streams:
            gate.set()
        answers = await asyncio.gather(*(_rest(exchange) for exchange, _ in streams))
        assert answers == ["First last"] * 8
        assert await world.gateway.wait() == 0
        await until_gone(*processes)


async def test_a_hangup_replaces_the_workers_and_no_turn_fails(tmp_path: Path) -> None:
    async with fleet(tmp_path) as world, AsyncExitStack() as stack:
        exchange, gate = await stream(world, stack)
        before = await world.gateway.workers()
        over = asyncio.Event()
        load = [asyncio.create_task(turns_until(world, over)) for _ in range(3)]
        watch = asyncio.create_task(counters_until(world.gateway, over))
        await asyncio.sleep(0.3)
        world.gateway.send(signal.SIGHUP)
        await until_replaced(world.gateway, before)
        await world.gateway.logged("reloaded")
        await asyncio.sleep(0.3)
        over.set()
        counts = await asyncio.gather(*load)
        assert await watch > 2
        gate.set()
        assert await _rest(exchange) == "First last"
        await until_gone(*before.values())
        assert min(counts) > 0
        await world.gateway.eventually("chatgw_turns_total", sum(counts) + 1, outcome="ok")
        assert await world.gateway.total("chatgw_turns_total") == sum(counts) + 1
        assert await world.gateway.total("chatgw_turns_in_flight") == 0
        await world.gateway.stop()


async def turns_until(world: World, over: asyncio.Event) -> int:
    """Good turns, each on a connection of its own, until it is over; how many."""
    count = 0
    while not over.is_set():
        world.echo(1)
        answer = await world.ask(HYPERLEAP, f"Turn {count}")
        assert answer.status == 200, answer.text
        assert read(HYPERLEAP, answer).terminals == ["ok"]
        count += 1
    return count


async def counters_until(gateway: GatewayProcess, over: asyncio.Event) -> int:
    """Scrapes until it is over, and fails if any counter falls; how often."""
    before: Samples = {}
    scrapes = 0
    while not over.is_set():
        counters = {
            key: value
            for key, value in (await gateway.metrics()).samples.items()
            if key[0].endswith(("_total", "_count", "_bucket"))
        }
        assert [key for key, value in counters.items() if value < before.get(key, 0)] == []
        assert before.keys() <= counters.keys()
        before = counters
        scrapes += 1
        await asyncio.sleep(0.1)
    return scrapes


def rewrite(gateway: GatewayProcess, old: str, new: str) -> None:
    text = gateway.file.read_text()
    assert old in text
    fresh = gateway.file.with_suffix(".new")
    fresh.write_text(text.replace(old, new))
    fresh.replace(gateway.file)


async def test_a_changed_file_is_taken_on_and_a_bad_one_is_not(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as world:
        gateway = world.gateway
        before = await gateway.workers()
        rewrite(gateway, '"drain_s": 60', '"drain_s": 60, "typing_error": 1')
        (told,) = await gateway.logged("configuration_invalid")
        assert "typing_error" in str(told["problems"])
        assert await gateway.workers() == before
        assert await gateway.total("chatgw_config_last_reload_successful") == 0
        rewrite(gateway, ', "typing_error": 1', "")
        await gateway.logged("configuration_unchanged")
        assert await gateway.total("chatgw_config_last_reload_successful") == 1
        rewrite(gateway, '"bind": "127.0.0.1:0"', '"bind": "127.0.0.1:1"')
        (told,) = await gateway.logged("configuration_refused")
        assert "admin.bind cannot change" in str(told["why"])
        assert await gateway.workers() == before
        rewrite(gateway, '"bind": "127.0.0.1:1"', '"bind": "127.0.0.1:0"')
        rewrite(gateway, '"workers": 1', '"workers": 2')
        (told,) = await gateway.logged("reloading")
        assert told["changed"] == ["server.workers"]
        await gateway.logged("reloaded")
        after = await gateway.workers()
        assert len(after) == 2
        assert before[0] not in after.values()
        assert await gateway.total("chatgw_config_last_reload_successful") == 1
        assert await gateway.total("chatgw_workers_configured") == 2
        assert await gateway.by("chatgw_config_reloads_total", "result") == {
            "invalid": 2,
            "good": 1,
            "failed": 0,
        }
        await until_gone(before[0])
        await gateway.stop()


async def test_a_reload_on_which_no_worker_can_start_changes_nothing(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as world:
        before = await world.gateway.workers()
        (tmp_path / "file").write_text("")
        rewrite(world.gateway, f"{tmp_path}/gateway.db", f"{tmp_path}/file/gateway.db")
        (told,) = await world.gateway.logged("reload_failed")
        assert "Not a directory" in str(told["why"])
        assert await world.gateway.workers() == before
        world.reply("As before")
        assert read(WIDGET, await world.ask(WIDGET, "Hello")).text == "As before"
        await world.gateway.stop()


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_reload_that_fails_half_way_is_taken_back(
    tmp_path: Path, *, stubborn: bool
) -> None:
    async with fleet(tmp_path) as world:
        gateway = world.gateway
        before = await gateway.workers()
        rewrite(gateway, f"{tmp_path}/gateway.db", f"{tmp_path}/other.db")
        known = set(before.values())
        first, second = await newcomer(gateway, known), await newcomer(gateway, known)
        os.kill(second, signal.SIGKILL)
        (told,) = await gateway.logged("reload_failed")
        assert "SIGKILL" in str(told["why"])
        if stubborn:
            os.kill(await newcomer(gateway, known), signal.SIGKILL)
            assert (await gateway.logged("worker_not_replaced"))[0]["worker"] == 0
        third = await newcomer(gateway, known)
        async with asyncio.timeout(PATIENCE_S):
            while await gateway.workers() != {0: third, 1: before[1]}:
                await asyncio.sleep(0.05)
        await until_gone(first)
        (tmp_path / "other.db").unlink()
        for _ in range(4):
            world.reply("As before")
            assert read(WIDGET, await world.ask(WIDGET, "Hello")).text == "As before"
        assert not (tmp_path / "other.db").exists()
        await gateway.stop()


async def newcomer(gateway: GatewayProcess, known: set[int]) -> int:
    """The next worker that the gateway starts; from then on it is known."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            text = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text()
            if found := {int(each) for each in text.split()} - known:
                known.add(process := min(found))
                return process
            await asyncio.sleep(0.01)


async def test_without_a_supervisor_the_port_is_free_and_turns_finish(tmp_path: Path) -> None:
    async with fleet(tmp_path) as world, AsyncExitStack() as stack:
        exchange, gate = await stream(world, stack)
        processes = list((await world.gateway.workers()).values())
        world.gateway.send(signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    (await H1.connect(world.gateway.public)).abort()
                except OSError:
                    break
                await asyncio.sleep(0.02)
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(world.gateway.public)
        gate.set()
        assert await _rest(exchange) == "First last"
        await until_gone(*processes)
        await world.gateway.wait()


async def test_a_worker_that_is_held_up_is_reported_and_left_alone(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as world:
        (process,) = (await world.gateway.workers()).values()
        os.kill(process, signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE_S):
            while (await world.gateway.ask(world.gateway.admin, "/readyz")).status == 200:
                await asyncio.sleep(0.05)
        assert (await world.gateway.ask(world.gateway.admin, "/livez")).status == 200
        os.kill(process, signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_S):
            while (await world.gateway.ask(world.gateway.admin, "/readyz")).status != 200:
                await asyncio.sleep(0.05)
        assert await world.gateway.total("chatgw_worker_lag_seconds", worker="0") > 0.9
        assert (await world.gateway.workers()) == {0: process}
        await world.gateway.stop()


async def test_a_worker_that_is_asked_to_stop_is_followed_by_another(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as world, AsyncExitStack() as stack:
        exchange, gate = await stream(world, stack)
        before = await world.gateway.workers()
        os.kill(before[0], signal.SIGTERM)
        await until_replaced(world.gateway, before)
        gate.set()
        assert await _rest(exchange) == "First last"
        await until_gone(before[0])
        assert await world.gateway.total("chatgw_worker_restarts_total") == 0
        await world.gateway.stop()


async def test_a_stop_that_every_process_is_told_of_is_no_fault(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1) as world:
        (worker,) = (await world.gateway.workers()).values()
        os.kill(worker, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            while not await world.gateway.total("chatgw_workers", state="starting"):
                await asyncio.sleep(0.02)
        await world.gateway.stop()
        assert [it for it in world.gateway.records if it["level"] == "error"] == []


async def test_every_worker_says_which_it_is_in_its_log_lines(tmp_path: Path) -> None:
    async with fleet(tmp_path) as world:
        world.echo(1)
        await world.ask(WIDGET, "Hello")
        await world.gateway.stop()
        (line,) = [it for it in world.gateway.records if it["event"] == "request"]
        assert line["worker"] in {0, 1}
        assert world.gateway.noise == []
