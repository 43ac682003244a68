import asyncio
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import StoreUnavailable
from gateway.messages import ConversationKey
from gateway.stores import SqliteStore
from gateway.stores.schema import VERSION
from tests.stores.rig import add, begun, history, make, opened, say, sql
from tests.stores.samples import KEY, exchange, expected_ids


class TestDisk:
    async def test_a_full_disk_fails_the_write_and_is_got_over(self, path: Path) -> None:
        async with opened(path) as store:
            await make(store)
            await add(store, KEY, exchange(1))
            assert store._writer is not None
            pages = await store._writer.call(lambda c: int(c.pragma("page_count")))
            await store._writer.call(lambda c: int(c.pragma("max_page_count", pages + 2)))
            with pytest.raises(StoreUnavailable, match="no space"):
                await add(store, KEY, exchange(2, "x" * 100_000))
            await add(store, KEY, exchange(3))
            await store._writer.call(lambda c: int(c.pragma("max_page_count", 1_000_000)))
            await add(store, KEY, exchange(4, "x" * 100_000))
            assert await history(store) == ["q1", "a1", "q3", "a3", "q4", "a4"]
        assert sql(path, "PRAGMA integrity_check") == [("ok",)]

    async def test_a_full_disk_spares_the_writes_that_fit(self, path: Path) -> None:
        async with opened(path) as store:
            keys = [ConversationKey("acme", "widget", f"c{number}") for number in range(3)]
            leases = [(await begun(store, key)).lease for key in keys]
            assert store._writer is not None
            pages = await store._writer.call(lambda c: int(c.pragma("page_count")))
            await store._writer.call(lambda c: int(c.pragma("max_page_count", pages + 2)))
            results = await asyncio.gather(
                store.commit(leases[0], exchange(1)),
                store.commit(leases[1], exchange(2, "x" * 100_000)),
                store.commit(leases[2], exchange(3)),
                return_exceptions=True,
            )
            kinds = [type(result) for result in results]
            assert kinds == [type(None), StoreUnavailable, type(None)]
            found = [await history(store, key) for key in keys]
            assert found == [["q1", "a1"], [], ["q3", "a3"]]

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
            await make(store)
            await add(store, KEY, exchange(1))
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
            await add(store, KEY, exchange(2))
            assert await history(store) == expected_ids(range(1, 3))

    async def test_what_was_moved_away_is_neither_written_to_nor_made_anew(
        self, path: Path
    ) -> None:
        async with opened(path) as store:
            await make(store)
            await add(store, KEY, exchange(1))
            away = path.with_name("away")
            path.rename(away)
            with pytest.raises(StoreUnavailable, match="cannot be opened"):
                await add(store, KEY, exchange(2))
            with pytest.raises(StoreUnavailable, match="cannot be opened"):
                await store.load(KEY, messages=1)
            away.rename(path)
            await add(store, KEY, exchange(2))
            assert await history(store) == expected_ids(range(1, 3))

    async def test_a_file_that_took_the_place_of_a_deleted_one_is_used_and_keeps_its_log(
        self, path: Path
    ) -> None:
        async with opened(path) as store:
            await make(store)
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            async with opened(path) as other:
                await make(other)
                await add(other, KEY, exchange(1))
                assert await history(store) == expected_ids(range(1, 2))
                await add(store, KEY, exchange(2))
                await add(other, KEY, exchange(3))
            assert await history(store) == expected_ids(range(1, 4))
        async with opened(path) as store:
            assert await history(store) == expected_ids(range(1, 4))


class TestRefusals:
    @pytest.fixture
    async def used(self, path: Path) -> Path:
        async with opened(path) as store:
            for number in range(20):
                key = ConversationKey("acme", "widget", f"c{number}")
                await make(store, key)
                await add(store, key, exchange(number, "x" * 2000))
        return path

    async def refused(self, path: Path) -> str:
        """The refusal's text, once it is sure that the file is as it was."""
        before = path.read_bytes()
        with pytest.raises(StoreUnavailable) as caught:
            await SqliteStore(path, retention_days=1, clock=lambda: 1e12).open()
        assert path.read_bytes() == before
        return str(caught.value)

    async def test_a_newer_schema(self, used: Path) -> None:
        sql(used, f"PRAGMA user_version = {VERSION + 1}")
        text = await self.refused(used)
        assert str(used) in text
        assert f"schema {VERSION + 1} " in text
        assert "newer release" in text

    async def test_a_newer_schema_that_is_still_in_the_log(self, used: Path) -> None:
        connection = apsw.Connection(str(used))
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.close()
        log = used.with_name(f"{used.name}-wal")
        before = log.read_bytes()
        assert before
        assert f"schema {VERSION + 1} " in await self.refused(used)
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
            await make(store)
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
            await make(store)
