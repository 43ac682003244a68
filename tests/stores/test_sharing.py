import asyncio
import signal
import time
from pathlib import Path

import pytest

from gateway.errors import NotFound, StoreUnavailable
from gateway.messages import ConversationKey
from gateway.stores import SqliteStore
from gateway.stores.worker import WAIT_S
from tests.stores.rig import add, history, line, locked, make, opened, say, sql, start
from tests.stores.samples import KEY, OTHER, exchange, expected_ids


class TestOtherProcesses:
    async def test_two_processes_share_one_file(self, path: Path) -> None:
        async with opened(path) as store:
            await make(store)
            process = await start("append", path, "theirs", 200)
            for number in range(200):
                await add(store, KEY, exchange(number))
            said, _ = await process.communicate()
            assert process.returncode == 0
            assert said.split()[-1] == b"199"
            assert await history(store) == expected_ids(range(200))
            theirs = ConversationKey("acme", "widget", "theirs")
            assert await history(store, theirs) == expected_ids(range(200))

    async def test_two_processes_append_to_one_conversation_without_mixing(
        self, path: Path
    ) -> None:
        async with opened(path) as store:
            await make(store)
            process = await start("append", path, KEY.id, 100)
            for number in range(1000, 1100):
                await add(store, KEY, exchange(number))
            await process.communicate()
            found = await history(store)
        assert len(found) == 400
        assert [id_[1:] for id_ in found[::2]] == [id_[1:] for id_ in found[1::2]]

    async def test_processes_that_make_the_file_at_once_all_succeed(self, path: Path) -> None:
        processes = [await start("append", path, f"c{n}", 3) for n in range(4)]
        await asyncio.gather(*(process.communicate() for process in processes))
        assert [process.returncode for process in processes] == [0, 0, 0, 0]
        async with opened(path) as store:
            for number in range(4):
                key = ConversationKey("acme", "widget", f"c{number}")
                assert await history(store, key) == expected_ids(range(3))

    async def test_a_lock_of_a_second_is_waited_for(self, path: Path) -> None:
        async with opened(path) as store:
            await make(store)
            async with locked(path, 1):
                await add(store, KEY, exchange(1))
            assert await history(store) == expected_ids(range(1, 2))

    async def test_a_lock_of_five_seconds_is_given_up_on(self, path: Path) -> None:
        async with opened(path) as store:
            await make(store)
            async with locked(path, 5):
                lags: list[float] = []
                ticking = asyncio.create_task(_tick(lags))
                began = time.perf_counter()
                results = await asyncio.gather(
                    *(add(store, KEY, exchange(n)) for n in range(20)),
                    make(store, OTHER),
                    return_exceptions=True,
                )
                took = time.perf_counter() - began
                with pytest.raises(StoreUnavailable):
                    await store.begin(OTHER, identity=None, create=True, messages=5)
                assert time.perf_counter() - began < took + WAIT_S * 0.9, "it was known by then"
                assert await history(store) == []  # reading goes on
                ticking.cancel()
            assert [type(result) for result in results] == [StoreUnavailable] * 21
            assert WAIT_S * 0.9 < took < WAIT_S * 2
            assert max(lags) < WAIT_S * 0.8  # a loop that waits for the file is later
            await add(store, KEY, exchange(50))
            assert await history(store) == ["q50", "a50"]
            with pytest.raises(NotFound):
                await store.load(OTHER, messages=5)

    async def test_a_file_that_is_locked_at_start_is_refused_in_time(self, path: Path) -> None:
        sql(path, "PRAGMA journal_mode = DELETE")
        async with locked(path, 60):
            began = time.perf_counter()
            with pytest.raises(StoreUnavailable, match="locked by another process"):
                await SqliteStore(path, retention_days=90).open()
            assert time.perf_counter() - began < 8

    async def test_a_killed_writer_loses_nothing_that_was_acknowledged(self, path: Path) -> None:
        process = await start("append", path, KEY.id, 100_000)
        acknowledged = -1
        for _ in range(300):
            acknowledged = int(await line(process))
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        rest = (await process.stdout.read()).split(b"\n")[:-1]
        await process.wait()
        acknowledged = max(acknowledged, *(int(number) for number in rest), 0)
        async with opened(path) as store:
            found = await history(store)
        assert found in (
            expected_ids(range(acknowledged + 1)),
            expected_ids(range(acknowledged + 2)),
        )
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]

    async def test_a_process_that_closes_nothing_ends(self, path: Path) -> None:
        async with asyncio.timeout(20):
            assert await say("leave", path) == ["appended"]
        async with opened(path) as store:
            assert (await history(store))[:2] == ["q1", "a1"]


async def _tick(lags: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.01)
        lags.append(time.perf_counter() - before - 0.01)
