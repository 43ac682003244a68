import asyncio
import contextlib
import os
import re
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import NotFound, StoreUnavailable
from gateway.messages import ConversationKey
from gateway.stores import SqliteStore
from gateway.stores.sqlite import _LOAD
from gateway.stores.worker import WAIT_S
from tests.stores.samples import KEY, OTHER, exchange, expected_ids, ids

ROOT = Path(__file__).parents[2]
DAY = 86_400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@contextlib.asynccontextmanager
async def opened(
    path: Path, *, retention_days: int | None = 90, clock: Callable[[], float] = time.time
) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, retention_days=retention_days, clock=clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def start(verb: str, *args: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.stores.processes",
        verb,
        *map(str, args),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )


async def say(verb: str, *args: object) -> list[str]:
    process = await start(verb, *args)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().splitlines()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@contextlib.asynccontextmanager
async def locked(path: Path, seconds: float) -> AsyncIterator[None]:
    process = await start("hold", path, seconds)
    assert await line(process) == "held"
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def history(store: SqliteStore, key: ConversationKey = KEY) -> list[str]:
    return ids((await store.load(key, create=False, messages=100_000)).messages)


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return [tuple(row) for row in connection.execute(statement)]
    finally:
        connection.close()


class TestKeeping:
    async def test_everything_is_there_after_reopening(self, path: Path) -> None:
        async with opened(path) as store:
            await store.create(KEY, owner="a@example.com", subject="subject")
            for number in range(5):
                await store.append(KEY, exchange(number))
            before = await store.load(KEY, create=False, messages=100)
        async with opened(path) as store:
            assert await store.load(KEY, create=False, messages=100) == before
            await store.append(KEY, exchange(5))
            assert await history(store) == expected_ids(range(6))

    async def test_a_closed_store_is_one_file(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            await store.append(KEY, exchange(1))
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    async def test_a_store_that_is_not_open_is_unavailable(self, path: Path) -> None:
        store = SqliteStore(path, retention_days=90)
        with pytest.raises(StoreUnavailable):
            await store.load(KEY, create=True, messages=0)
        await store.open()
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.append(KEY, exchange(1))

    async def test_closing_waits_for_what_is_pending(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            pending = [asyncio.create_task(store.append(KEY, exchange(n))) for n in range(100)]
            await asyncio.sleep(0)
        await asyncio.gather(*pending)
        async with opened(path) as store:
            assert await history(store) == expected_ids(range(100))

    async def test_a_store_can_be_opened_again(self, path: Path) -> None:
        store = SqliteStore(path, retention_days=None)
        for number in range(3):
            await store.open()
            await store.load(KEY, create=True, messages=0)
            await store.append(KEY, exchange(number))
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
                await store.load(KEY, create=True, messages=0)
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
                await store.load(key, create=True, messages=0)
                await store.append(key, [exchange(n)[0] for n in range(count)])
            yield store

    async def test_a_load_reads_by_index_alone(self, long: SqliteStore, path: Path) -> None:
        connection = apsw.Connection(str(path))
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {_LOAD}", (30, *KEY))]
        connection.close()
        assert len(plan) == 2
        assert "USING INDEX" in plan[0]
        assert "(tenant=? AND dialect=? AND id=?)" in plan[0]
        assert "USING INDEX" in plan[1]
        assert "(conversation=? AND seq>?)" in plan[1]

    async def test_a_load_costs_the_same_in_a_long_conversation(self, long: SqliteStore) -> None:
        async def best(key: ConversationKey) -> float:
            times = []
            for _ in range(50):
                began = time.perf_counter()
                await long.load(key, create=False, messages=10)
                times.append(time.perf_counter() - began)
            return min(times)

        assert await best(KEY) < 5 * await best(OTHER)

    async def test_an_existing_conversation_is_loaded_without_a_write(
        self, long: SqliteStore, path: Path
    ) -> None:
        async with locked(path, 60):
            found = await long.load(KEY, create=True, messages=10)
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
            await store.load(KEY, create=True, messages=0)
            spinning = [asyncio.create_task(spin()) for _ in range(tasks)]
            for number in range(20):
                await store.append(KEY, exchange(number))
                await store.load(KEY, create=False, messages=10)
            busy = False
            await asyncio.gather(*spinning)
            assert await history(store) == expected_ids(range(20))


@contextlib.asynccontextmanager
async def stalled(store: SqliteStore) -> AsyncIterator[threading.Event]:
    """The writer's thread stands still until the event is set or the block ends."""
    assert store._writer is not None
    go_on = threading.Event()
    stalling = asyncio.create_task(store._writer.call(lambda _: go_on.wait()))
    await asyncio.sleep(0.05)
    try:
        yield go_on
    finally:
        go_on.set()
        with contextlib.suppress(StoreUnavailable):
            await stalling


class TestGroups:
    async def test_waiting_writes_are_one_transaction(self, path: Path) -> None:
        commits = 0

        def count() -> bool:
            nonlocal commits
            commits += 1
            return False

        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            async with stalled(store) as go_on:
                assert store._writer is not None
                counting = asyncio.create_task(
                    store._writer.call(lambda connection: connection.set_commit_hook(count))
                )
                writes = [asyncio.create_task(store.append(KEY, exchange(n))) for n in range(50)]
                await asyncio.sleep(0)
                go_on.set()
                await asyncio.gather(counting, *writes)
            assert commits <= 2
            assert await history(store) == expected_ids(range(50))

    async def test_a_write_that_fails_undoes_no_other(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            half_bad = [*exchange(7), *exchange(8, "\ud800")]
            async with stalled(store) as go_on:
                writes = [
                    asyncio.create_task(write)
                    for write in (
                        store.append(KEY, exchange(1)),
                        store.append(OTHER, exchange(2)),
                        store.append(KEY, half_bad),
                        store.append(KEY, exchange(3)),
                    )
                ]
                await asyncio.sleep(0)
                go_on.set()
                results = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(result) for result in results] == [
                type(None),
                NotFound,
                UnicodeEncodeError,
                type(None),
            ]
            assert await history(store) == ["q1", "a1", "q3", "a3"]

    async def test_a_group_that_cannot_be_committed_is_tried_one_by_one(self, path: Path) -> None:
        refusals = iter([True])

        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            assert store._writer is not None
            async with stalled(store) as go_on:
                hooked = asyncio.create_task(
                    store._writer.call(
                        lambda connection: connection.set_commit_hook(lambda: next(refusals, False))
                    )
                )
                writes = [asyncio.create_task(store.append(KEY, exchange(n))) for n in range(5)]
                await asyncio.sleep(0)
                go_on.set()
                await asyncio.gather(*writes, hooked, return_exceptions=True)
            assert next(refusals, None) is None
            assert await history(store) == expected_ids(range(5))

    async def test_a_full_queue_refuses_at_once(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            async with stalled(store) as go_on:
                writes = [asyncio.create_task(store.append(KEY, exchange(n))) for n in range(1024)]
                await asyncio.sleep(0)
                began = time.perf_counter()
                with pytest.raises(StoreUnavailable):
                    await store.append(KEY, exchange(5000))
                assert time.perf_counter() - began < 0.5
                go_on.set()
                await asyncio.gather(*writes)
            assert await history(store) == expected_ids(range(1024))

    async def test_a_write_that_waited_too_long_is_not_done_later(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            async with stalled(store):
                began = time.perf_counter()
                with pytest.raises(StoreUnavailable):
                    await store.append(KEY, exchange(1))
                assert time.perf_counter() - began < 3 * WAIT_S
            await store.append(KEY, exchange(2))
            assert await history(store) == ["q2", "a2"]

    async def test_a_cancelled_callers_write_still_happens(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            async with stalled(store):
                write = asyncio.create_task(store.append(KEY, exchange(1)))
                await asyncio.sleep(0)
                write.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await write
            await store.append(KEY, exchange(2))
            assert await history(store) == expected_ids(range(1, 3))


class TestOtherProcesses:
    async def test_two_processes_share_one_file(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            process = await start("append", path, "theirs", 200)
            for number in range(200):
                await store.append(KEY, exchange(number))
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
            await store.load(KEY, create=True, messages=0)
            process = await start("append", path, KEY.id, 100)
            for number in range(1000, 1100):
                await store.append(KEY, exchange(number))
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
            await store.load(KEY, create=True, messages=0)
            async with locked(path, 1):
                await store.append(KEY, exchange(1))
            assert await history(store) == expected_ids(range(1, 2))

    async def test_a_lock_of_five_seconds_is_given_up_on(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            async with locked(path, 5):
                lags: list[float] = []
                ticking = asyncio.create_task(_tick(lags))
                began = time.perf_counter()
                results = await asyncio.gather(
                    *(store.append(KEY, exchange(n)) for n in range(20)),
                    store.load(OTHER, create=True, messages=5),
                    return_exceptions=True,
                )
                took = time.perf_counter() - began
                assert await history(store) == []  # reading goes on
                ticking.cancel()
            assert [type(result) for result in results] == [StoreUnavailable] * 21
            assert WAIT_S * 0.9 < took < WAIT_S * 2
            assert max(lags) < 0.5
            await store.append(KEY, exchange(50))
            assert await history(store) == ["q50", "a50"]
            with pytest.raises(NotFound):
                await store.load(OTHER, create=False, messages=5)

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


class TestDisk:
    async def test_a_full_disk_fails_the_write_and_is_got_over(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            await store.append(KEY, exchange(1))
            assert store._writer is not None
            pages = await store._writer.call(lambda c: int(c.pragma("page_count")))
            await store._writer.call(lambda c: int(c.pragma("max_page_count", pages + 2)))
            with pytest.raises(StoreUnavailable, match="no space"):
                await store.append(KEY, exchange(2, "x" * 100_000))
            await store.append(KEY, exchange(3))
            await store._writer.call(lambda c: int(c.pragma("max_page_count", 1_000_000)))
            await store.append(KEY, exchange(4, "x" * 100_000))
            assert await history(store) == ["q1", "a1", "q3", "a3", "q4", "a4"]
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]

    async def test_a_full_disk_spares_the_writes_that_fit(self, path: Path) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            assert store._writer is not None
            pages = await store._writer.call(lambda c: int(c.pragma("page_count")))
            await store._writer.call(lambda c: int(c.pragma("max_page_count", pages + 2)))
            results = await asyncio.gather(
                store.append(KEY, exchange(1)),
                store.append(KEY, exchange(2, "x" * 100_000)),
                store.append(KEY, exchange(3)),
                return_exceptions=True,
            )
            kinds = [type(result) for result in results]
            assert kinds == [type(None), StoreUnavailable, type(None)]
            assert await history(store) == ["q1", "a1", "q3", "a3"]

    async def test_a_disk_that_fails_is_got_over(self, path: Path) -> None:
        assert await say("fail_to_write", path) == ["store_unavailable", "2", "appended"]
        async with opened(path) as store:
            assert await history(store) == ["q1", "a1", "q3", "a3"]
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]

    @pytest.mark.parametrize("error", [apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError])
    async def test_after_an_error_of_the_disk_the_file_is_opened_afresh(
        self, path: Path, error: type[apsw.Error]
    ) -> None:
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            await store.append(KEY, exchange(1))
            for worker in (store._writer, store._reader):
                assert worker is not None
                seen: list[apsw.Connection] = []

                def fail(connection: apsw.Connection, seen: list[apsw.Connection] = seen) -> None:
                    seen.append(connection)
                    raise error

                with pytest.raises(StoreUnavailable):
                    await worker.call(fail)
                await worker.call(seen.append)
                assert seen[0] is not seen[1]
            await store.append(KEY, exchange(2))
            assert await history(store) == expected_ids(range(1, 3))

    async def test_a_file_that_is_gone_is_not_made_anew(self, path: Path) -> None:
        def fail(_: apsw.Connection) -> None:
            raise apsw.IOError

        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
            away = path.with_name("away")
            path.rename(away)
            for worker in (store._writer, store._reader):
                assert worker is not None
                with pytest.raises(StoreUnavailable):
                    await worker.call(fail)
            with pytest.raises(StoreUnavailable, match="cannot be opened"):
                await store.append(KEY, exchange(1))
            with pytest.raises(StoreUnavailable, match="cannot be opened"):
                await store.load(KEY, create=True, messages=1)
            away.rename(path)
            await store.append(KEY, exchange(1))
            assert await history(store) == ["q1", "a1"]


class TestRefusals:
    @pytest.fixture
    async def used(self, path: Path) -> Path:
        async with opened(path) as store:
            for number in range(20):
                key = ConversationKey("acme", "widget", f"c{number}")
                await store.load(key, create=True, messages=0)
                await store.append(key, exchange(number, "x" * 2000))
        return path

    async def refused(self, path: Path) -> str:
        """The refusal's text, once it is sure that the file is as it was."""
        before = path.read_bytes()
        with pytest.raises(StoreUnavailable) as caught:
            await SqliteStore(path, retention_days=1, clock=lambda: 1e12).open()
        assert path.read_bytes() == before
        return str(caught.value)

    async def test_a_newer_schema(self, used: Path) -> None:
        sql(used, "PRAGMA user_version = 99")
        text = await self.refused(used)
        assert str(used) in text
        assert "schema 99" in text
        assert "newer release" in text

    async def test_a_newer_schema_that_is_still_in_the_log(self, used: Path) -> None:
        connection = apsw.Connection(str(used))
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        log = used.with_name(f"{used.name}-wal")
        before = log.read_bytes()
        assert before
        assert "schema 99" in await self.refused(used)
        assert log.read_bytes() == before

    async def test_garbage(self, path: Path) -> None:
        path.write_bytes(os.urandom(20_000))
        assert "not a SQLite database" in await self.refused(path)
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize("application", [0, 1234])
    async def test_another_programs_database(self, path: Path, application: int) -> None:
        sql(path, f"PRAGMA application_id = {application}; CREATE TABLE theirs (a)")
        assert "another program" in await self.refused(path)

    async def test_a_damaged_page(self, used: Path) -> None:
        with used.open("r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * 64)
        assert "damaged" in await self.refused(used)

    async def test_a_file_that_was_cut_short(self, used: Path) -> None:
        os.truncate(used, used.stat().st_size // 2 // 4096 * 4096)
        assert "damaged" in await self.refused(used)

    async def test_a_directory(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(StoreUnavailable, match="cannot be opened"):
            await SqliteStore(path, retention_days=90).open()

    async def test_a_path_through_a_file(self, path: Path) -> None:
        path.write_bytes(b"")
        with pytest.raises(StoreUnavailable, match="cannot be made"):
            await SqliteStore(path / "gateway.db", retention_days=90).open()

    @pytest.fixture
    def public(self) -> Iterator[Path]:
        """A directory that anybody may enter, unlike pytest's."""
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o777)
            yield Path(name)

    async def test_a_read_only_file(self, public: Path) -> None:
        path = public / "gateway.db"
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)
        path.chmod(0o444)
        before = path.read_bytes()
        assert await say("open_as_nobody", path) == [f"store_unavailable: {path} is read-only"]
        assert path.read_bytes() == before

    async def test_a_directory_where_nothing_may_be_made(self, public: Path) -> None:
        public.chmod(0o555)
        (said,) = await say("open_as_nobody", public / "gateway.db")
        assert re.fullmatch(r"store_unavailable: .* cannot be made: Permission denied", said)

    async def test_an_empty_file_is_used(self, path: Path) -> None:
        path.touch()
        async with opened(path) as store:
            await store.load(KEY, create=True, messages=0)


class TestRetention:
    async def test_what_nobody_wrote_to_is_deleted_at_the_next_start(self, path: Path) -> None:
        async with opened(path, clock=lambda: 0.0) as store:
            for key in (KEY, OTHER):
                await store.load(key, create=True, messages=0)
                await store.append(key, exchange(1, f"a word to be found by {key.tenant}"))
        async with opened(path, clock=lambda: 50 * DAY) as store:
            await store.append(OTHER, exchange(2))
        async with opened(path, clock=lambda: 91 * DAY) as store:
            await store.load(ConversationKey("a", "b", "c"), create=True, messages=0)
            with pytest.raises(NotFound):
                await store.load(KEY, create=False, messages=1)
            with pytest.raises(NotFound):
                await store.append(KEY, exchange(3))
            assert await history(store, OTHER) == ["q1", "a1", "q2", "a2"]
        assert sql(path, "SELECT count(*) FROM messages") == [(4,)]
        kept = path.read_bytes()
        assert b"found by globex" in kept
        assert b"found by acme" not in kept

    async def test_without_a_limit_all_is_kept(self, path: Path) -> None:
        async with opened(path, clock=lambda: 0.0) as store:
            await store.load(KEY, create=True, messages=0)
        async with opened(path, retention_days=None, clock=lambda: 1e9 * DAY) as store:
            await store.load(OTHER, create=True, messages=0)
            assert await history(store) == []
