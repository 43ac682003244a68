from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import apsw
import pytest

from gateway.stores.connection import close_writer, create_and_open, unavailable

TOGETHER = 4


def test_many_who_make_the_same_file_at_once_all_succeed(tmp_path: Path) -> None:
    start = Barrier(TOGETHER)

    def make(path: Path) -> apsw.Connection:
        start.wait()
        return create_and_open(path)

    with ThreadPoolExecutor(TOGETHER) as threads:
        for number in range(25):
            path = tmp_path / f"{number}.db"
            for connection in threads.map(make, [path] * TOGETHER):
                close_writer(connection)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (apsw.BusyError, "locked by another process"),
        (apsw.FullError, "no space on the disk"),
        (apsw.ReadOnlyError, "read-only"),
        (apsw.CantOpenError, "cannot be opened"),
        (apsw.IOError, "the disk failed"),
        (apsw.CorruptError, "damaged"),
        (apsw.NotADBError, "not a SQLite database"),
        (apsw.NoMemError, "refused by SQLite: NoMemError"),
    ],
)
def test_an_error_says_what_it_means_and_nothing_of_its_own(
    error: type[apsw.Error], meaning: str
) -> None:
    cause = error("a secret")
    said = unavailable(cause)
    assert meaning in str(said)
    assert "secret" not in str(said)
    assert said.__cause__ is cause
