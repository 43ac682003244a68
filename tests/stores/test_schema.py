from pathlib import Path

import apsw
import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import schema
from gateway.stores.connection import _refuse_old_library


@pytest.fixture
def connection(tmp_path: Path) -> apsw.Connection:
    return apsw.Connection(str(tmp_path / "gateway.db"))


def test_an_empty_file_comes_to_the_newest_version_and_stays(connection: apsw.Connection) -> None:
    assert schema.examine(connection) == 0
    schema.migrate(connection)
    schema.migrate(connection)
    assert schema.examine(connection) == schema.VERSION
    assert connection.pragma("application_id") == schema.APPLICATION_ID


def test_each_step_is_done_once(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.migrate(connection)
    steps = (*schema.MIGRATIONS, "CREATE TABLE second (a)", "CREATE TABLE third (a)")
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    monkeypatch.setattr(schema, "VERSION", len(steps))
    schema.migrate(connection)
    assert schema.examine(connection) == len(steps)
    connection.execute("SELECT * FROM second, third")


def test_a_step_that_fails_leaves_the_file_at_its_old_version(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.migrate(connection)
    steps = (*schema.MIGRATIONS, "CREATE TABLE second (a)", "CREATE TABLE second (a)")
    with monkeypatch.context() as newer:
        newer.setattr(schema, "MIGRATIONS", steps)
        newer.setattr(schema, "VERSION", len(steps))
        with pytest.raises(apsw.SQLError):
            schema.migrate(connection)
    assert schema.examine(connection) == schema.VERSION
    assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'second'").fetchall()


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.9.3"])
def test_a_library_with_the_reset_bug_is_refused(version: str) -> None:
    with pytest.raises(StoreUnavailable, match=version):
        _refuse_old_library(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0", apsw.sqlite_lib_version()])
def test_a_library_without_it_is_used(version: str) -> None:
    _refuse_old_library(version)
