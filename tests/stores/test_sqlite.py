import asyncio
import os
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import NotFound, StoreUnavailable
from gateway.messages import ConversationKey, Leased
from gateway.stores import SqliteStore
from gateway.stores.statements import COUNT, LOAD, RECENT, SCAN
from tests.stores.rig import add, history, locked, make, opened, sql
from tests.stores.samples import KEY, OTHER, exchange, expected_ids

DAY = 86_400.0


def query_plan(path: Path, statement: str, values: tuple[object, ...]) -> list[str]:
    connection = apsw.Connection(str(path))
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    finally:
        connection.close()


class TestKeeping:
    async def test_everything_is_there_after_reopening(self, path: Path) -> None:
        async with opened(path) as store:
            await store.create(KEY, owner="a@example.com", subject="subject")
            for number in range(5):
                await add(store, KEY, exchange(number))
            before = await store.load(KEY, messages=100)
        async with opened(path) as store:
            assert await store.load(KEY, messages=100) == before
            await add(store, KEY, exchange(5))
            assert await history(store) == expected_ids(range(6))

    async def test_a_closed_store_is_one_file(self, path: Path) -> None:
        async with opened(path) as store:
            await make(store)
            await add(store, KEY, exchange(1))
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    async def test_a_store_that_is_not_open_is_unavailable(self, path: Path) -> None:
        store = SqliteStore(path, retention_days=90)
        with pytest.raises(StoreUnavailable):
            await make(store)
        await store.open()
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await add(store, KEY, exchange(1))

    async def test_closing_waits_for_what_is_pending(self, path: Path) -> None:
        async with opened(path) as store:
            keys = [ConversationKey("acme", "widget", str(number)) for number in range(100)]
            pending = [asyncio.create_task(make(store, key)) for key in keys]
            await asyncio.sleep(0)
        await asyncio.gather(*pending, return_exceptions=True)
        async with opened(path) as store:
            for key in keys:
                await store.load(key, messages=0)

    async def test_a_store_can_be_opened_again(self, path: Path) -> None:
        store = SqliteStore(path, retention_days=None)
        for number in range(3):
            await store.open()
            await make(store)
            await add(store, KEY, exchange(number))
            await store.close()
        async with opened(path) as again:
            assert await history(again) == expected_ids(range(3))

    async def test_an_opening_that_is_cancelled_leaves_nothing_open(self, path: Path) -> None:
        for steps in range(6):
            opening = asyncio.create_task(SqliteStore(path, retention_days=90).open())
            for _ in range(steps):
                await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        async with asyncio.timeout(10):
            while any(thread.name.startswith("store-") for thread in threading.enumerate()):
                await asyncio.sleep(0.01)

    async def test_a_relative_path_stays_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = SqliteStore("var/gateway.db", retention_days=90)
        monkeypatch.chdir("/")
        await store.open()
        await store.close()
        assert (tmp_path / "var" / "gateway.db").is_file()

    async def test_files_and_new_directories_are_private(self, tmp_path: Path) -> None:
        path = tmp_path / "one" / "two" / "gateway.db"
        before = os.umask(0)
        try:
            async with opened(path) as store:
                await make(store)
                modes = {
                    entry.relative_to(tmp_path).as_posix(): stat.S_IMODE(entry.stat().st_mode)
                    for entry in tmp_path.rglob("*")
                }
        finally:
            os.umask(before)
        assert modes == {
            "one": 0o700,
            "one/two": 0o700,
            "one/two/gateway.db": 0o600,
            "one/two/gateway.db-wal": 0o600,
            "one/two/gateway.db-shm": 0o600,
        }


class TestCost:
    @pytest.fixture
    async def long(self, path: Path) -> AsyncIterator[SqliteStore]:
        async with opened(path) as store:
            for key, count in ((KEY, 10_000), (OTHER, 10)):
                await make(store, key)
                await add(store, key, [exchange(n)[0] for n in range(count)])
            yield store

    async def test_a_load_reads_by_index_alone(self, long: SqliteStore, path: Path) -> None:
        plan = query_plan(path, LOAD, (30, *KEY, 0))
        assert len(plan) == 2
        assert "USING INDEX" in plan[0]
        assert "(tenant=? AND dialect=? AND id=?)" in plan[0]
        assert "USING INDEX" in plan[1]
        assert "(conversation=? AND seq>?)" in plan[1]

    @pytest.mark.parametrize(
        ("statement", "values", "used"),
        [
            (RECENT, ("acme", "widget", None, 0, 1e12, 1, 20, 1), "conversations_by_owner"),
            (RECENT, ("acme", "helper", "ada", 0, 1e12, 1, 20, 1), "conversations_by_owner"),
            (COUNT, ("acme", "helper", "ada", 0), "COVERING INDEX conversations_by_owner"),
            (SCAN, (0, 0, 0, 20), "conversations_by_update"),
        ],
    )
    async def test_a_listing_reads_by_index_alone(
        self,
        long: SqliteStore,
        path: Path,
        statement: str,
        values: tuple[object, ...],
        used: str,
    ) -> None:
        plan = query_plan(path, statement, values)
        assert not [step for step in plan if step.startswith("SCAN") and "SCAN c" not in step]
        assert [step for step in plan if used in step]
        if statement is RECENT:
            # The page is cut out of the index before anything is sorted or joined.
            assert "(conversation=? AND seq>?)" in " ".join(plan)
            owners = next(step for step in plan if used in step)
            assert (
                "(tenant=? AND dialect=? AND owner=? AND updated_at>? AND updated_at<?)" in owners
            )

    async def test_a_load_costs_the_same_in_a_long_conversation(self, long: SqliteStore) -> None:
        async def best(key: ConversationKey) -> float:
            times = []
            for _ in range(50):
                began = time.perf_counter()
                await long.load(key, messages=10)
                times.append(time.perf_counter() - began)
            return min(times)

        assert await best(KEY) < 5 * await best(OTHER)

    async def test_an_existing_conversation_is_loaded_without_a_write(
        self, long: SqliteStore, path: Path
    ) -> None:
        async with locked(path, 60):
            found = await long.load(KEY, messages=10)
        assert len(found.messages) == 10

    @pytest.mark.parametrize(("tasks", "each_s"), [(1, 0.003), (10, 0.0004), (5, 0.00005)])
    async def test_a_loop_that_is_never_idle_does_not_starve_the_store(
        self, path: Path, tasks: int, each_s: float
    ) -> None:
        busy = True

        async def spin() -> None:
            while busy:
                until = time.perf_counter() + each_s
                while time.perf_counter() < until:
                    pass
                await asyncio.sleep(0)

        async with opened(path) as store:
            await make(store)
            spinning = [asyncio.create_task(spin()) for _ in range(tasks)]
            for number in range(20):
                await add(store, KEY, exchange(number))
                await store.load(KEY, messages=10)
            busy = False
            await asyncio.gather(*spinning)
            assert await history(store) == expected_ids(range(20))


class TestRetention:
    async def test_what_nobody_wrote_to_is_deleted_at_the_next_start(self, path: Path) -> None:
        async with opened(path, clock=lambda: 0.0) as store:
            for key in (KEY, OTHER):
                await make(store, key)
                await add(store, key, exchange(1, f"a word to be found by {key.tenant}"))
        async with opened(path, clock=lambda: 50 * DAY) as store:
            await add(store, OTHER, exchange(2))
        async with opened(path, clock=lambda: 91 * DAY) as store:
            await make(store, ConversationKey("a", "b", "c"))
            with pytest.raises(NotFound):
                await store.load(KEY, messages=1)
            with pytest.raises(NotFound):
                await add(store, KEY, exchange(3))
            assert await history(store, OTHER) == ["q1", "a1", "q2", "a2"]
        assert sql(path, "SELECT count(*) FROM messages") == [(4,)]
        kept = path.read_bytes()
        assert b"found by globex" in kept
        assert b"found by acme" not in kept

    async def test_without_a_limit_all_is_kept(self, path: Path) -> None:
        async with opened(path, clock=lambda: 0.0) as store:
            await make(store)
        async with opened(path, retention_days=None, clock=lambda: 1e9 * DAY) as store:
            await make(store, OTHER)
            assert await history(store) == []


async def test_a_turn_takes_as_many_steps_in_a_long_conversation_as_in_a_short_one(
    path: Path,
) -> None:
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return False

    async with opened(path) as store:
        taken = []
        for length in (20, 10_000):
            key = ConversationKey("acme", "widget", f"c{length}")
            await make(store, key)
            await add(store, key, [message for n in range(length // 2) for message in exchange(n)])
            await store.write(lambda connection: connection.set_progress_handler(step, 1))
            steps = 0
            turn = await store.begin(key, identity=None, create=True, messages=10)
            assert isinstance(turn, Leased)
            assert len(turn.conversation.messages) == 10
            await store.commit(turn.lease, exchange(0))
            taken.append(steps)
        assert 0 < taken[1] <= taken[0] * 1.1
