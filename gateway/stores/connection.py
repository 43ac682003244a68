"""Connections to the SQLite file, and what SQLite's errors mean for a caller.

One connection writes and others read, each in its own thread, on a write-ahead log
(https://www.sqlite.org/wal.html): readers never wait for the writer. With `synchronous=NORMAL` a
killed process loses nothing that was committed, and a power cut may lose the last commits but
never damages the file. Several processes may share the file on a local disk; that needs a SQLite
without the WAL-reset bug (same page), so an older one is refused.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

import apsw

from gateway.errors import StoreUnavailable
from gateway.stores.schema import check_structure, examine, migrate

_FIXED_SINCE: Final = (3, 51, 3)
_OPEN_WAIT_S: Final = 2.0
_OPEN_PAUSE_S: Final = 0.02
_WAL_FILE_BYTES: Final = 16 * 1024 * 1024

_MEANINGS: Final[tuple[tuple[type[apsw.Error], str], ...]] = (
    (apsw.BusyError, "is locked by another process"),
    (apsw.FullError, "finds no space on the disk"),
    (apsw.ReadOnlyError, "is read-only"),
    (apsw.CantOpenError, "cannot be opened; check the path and who may write there"),
    (apsw.IOError, "cannot be read or written: the disk failed"),
    (apsw.CorruptError, "is damaged; restore a backup, or set store.url to another file"),
    (apsw.NotADBError, "is not a SQLite database; set store.url to another file"),
)

# After these the file may have been replaced or mounted anew, so the next use opens it afresh.
STALE: Final = (apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError, apsw.NotADBError)


def unavailable(error: apsw.Error, subject: str = "the store's file") -> StoreUnavailable:
    """The one translation of SQLite's errors; the text holds no value of any row."""
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            return _caused(f"{subject} {meaning}", error)
    return _caused(f"{subject} was refused by SQLite: {type(error).__name__}", error)


def _caused(text: str, error: Exception) -> StoreUnavailable:
    result = StoreUnavailable(text)
    result.__cause__ = error
    return result


def create_and_open(path: Path) -> apsw.Connection:
    """The writing connection to a file that is there, whole and of this release afterwards.

    A missing file is made with mode 0600, missing directories with 0700. Raises
    `StoreUnavailable`, and then has written nothing to a file that was there before.
    """
    _refuse_old_library(apsw.sqlite_lib_version())
    try:
        _create(path)
        until = time.monotonic() + _OPEN_WAIT_S
        while True:
            try:
                return _open_and_prepare(path)
            except apsw.BusyError:
                # Two processes that make the same new file a log at once are not queued by
                # SQLite: one is told "busy" without a wait.
                if time.monotonic() > until:
                    raise
                time.sleep(_OPEN_PAUSE_S)
    except apsw.Error as error:
        raise unavailable(error, str(path)) from error
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be made: {error.strerror}") from error


def reopen(path: Path) -> apsw.Connection:
    """A writing connection to a file that was in use; makes no new one. Raises `apsw.Error`."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _tune(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that can only read. Raises `apsw.Error`."""
    return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)


def close_writer(connection: apsw.Connection) -> None:
    """Moves the log into the file, if no other process is in the way, and lets go of both."""
    try:
        connection.set_busy_timeout(0)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error:
        pass  # what is committed is in the log; the next one to open the file finds it there
    finally:
        connection.close()


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is at the path, None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rows(
    connection: apsw.Connection, statement: str, values: tuple[str | float | None, ...]
) -> list[tuple[Any, ...]]:
    """Every row; the tables are STRICT, so the schema vouches for the types."""
    return connection.execute(statement, values).fetchall()


def _refuse_old_library(version: str) -> None:
    if tuple(int(part) for part in version.split(".")) < _FIXED_SINCE:
        raise StoreUnavailable(f"SQLite {version} can damage a shared file; install a newer apsw")


def _create(path: Path) -> None:
    for directory in reversed(path.parents):
        if not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return


def _open_and_prepare(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(round(_OPEN_WAIT_S * 1000))
        # A file that is refused below is not to be changed by closing it either.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        examine(connection)
        check_structure(connection)
        _use_log(connection)
        migrate(connection)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
        _tune(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_log(connection: apsw.Connection) -> None:
    if connection.readonly("main"):
        raise apsw.ReadOnlyError("opened read-only")
    if connection.pragma("journal_mode", "wal") != "wal":
        raise StoreUnavailable(f"{connection.filename}: no write-ahead log on this file system")


def _tune(connection: apsw.Connection) -> None:
    connection.pragma("synchronous", "NORMAL")
    connection.pragma("foreign_keys", "ON")
    # What retention deletes is overwritten: a free page must not keep the text.
    connection.pragma("secure_delete", "ON")
    connection.pragma("journal_size_limit", _WAL_FILE_BYTES)
    # Several processes write: no page of the file may come from a memory map.
    connection.pragma("mmap_size", 0)
