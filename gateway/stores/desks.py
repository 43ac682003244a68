"""What the two threads of the SQLite store do with their jobs.

The writer commits all that is waiting in one transaction, each job behind a savepoint, so one
that fails undoes nothing of the others. If the transaction itself fails, each is tried alone.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import apsw

from gateway.errors import StoreUnavailable
from gateway.stores import connection as connections
from gateway.stores.worker import Job

_BUSY_PAUSE_S: Final = 0.005
_SWEEP_EVERY_S: Final = 3600.0
_SWEEP_RETRY_S: Final = 60.0
_SWEEP_PAUSE_S: Final = 0.02
_SWEEP_BUSY_MS: Final = 100
_SWEEP_CONVERSATIONS: Final = 50
_SWEEP_MESSAGES: Final = 1000

_EXPIRED: Final = """
SELECT number, length FROM conversations WHERE updated_at < ? ORDER BY updated_at LIMIT ?
"""
_DELETE: Final = "DELETE FROM conversations WHERE number = ? AND updated_at < ?"
_EXPIRED_REPLIES: Final = "SELECT number FROM replies WHERE expires_at <= ? LIMIT ?"
_DELETE_REPLY: Final = "DELETE FROM replies WHERE number = ?"


class Reader:
    """Serves each job from whatever was committed when it began."""

    def __init__(self, path: Path) -> None:
        self._file = _File(path, connections.open_reader)

    def open(self) -> None:
        """Opens the connection."""
        try:
            self._file.connection()
        except apsw.Error as error:
            raise connections.unavailable(error) from error

    def serve(self, jobs: Sequence[Job]) -> None:
        """Gives each job its outcome."""
        self._file.look()
        for job in jobs:
            if _in_time([job]):
                self._read(job)

    def _read(self, job: Job) -> None:
        try:
            connection = self._file.connection()
            connection.set_busy_timeout(_milliseconds(job.deadline - time.monotonic()))
            job.run(connection)
        except apsw.Error as error:
            self._file.failed(error)
            job.refuse(connections.unavailable(error))
        except Exception as error:  # noqa: BLE001 - the job's caller gets it
            job.refuse(error)

    def rest(self) -> float | None:
        """Nothing to do."""
        return None

    def close(self) -> None:
        """Closes the connection."""
        self._file.close()


class Writer:
    """Commits jobs together, and deletes what nobody wrote to for `keep_s` seconds (None: never),
    and the recorded replies that nobody can ask for any more.

    `clock` gives seconds since the epoch.
    """

    def __init__(self, path: Path, *, keep_s: float | None, clock: Callable[[], float]) -> None:
        self._path = path
        self._file = _File(path, connections.reopen)
        self._keep_s = keep_s
        self._clock = clock
        self._next_sweep = time.monotonic()
        # What those are told who waited too long: in a queue behind a lock, of the lock.
        self._late: Callable[[], StoreUnavailable] = _late

    def open(self) -> None:
        """Makes the file ready."""
        self._file.adopt(connections.create_and_open(self._path))

    def serve(self, jobs: Sequence[Job]) -> None:
        """Gives each job its outcome, once it is committed or undone."""
        self._file.look()
        jobs = self._begin(jobs)
        if not jobs:
            return
        connection = self._file.connection()
        try:
            for job in jobs:
                _run_apart(connection, job)
            connection.execute("COMMIT")
        except apsw.Error as error:
            self._undo(connection, error)
            if len(jobs) == 1:
                jobs[0].refuse(connections.unavailable(error))
                return
            for job in jobs:
                self.serve([job])

    def rest(self) -> float | None:
        """Deletes a few expired conversations, if it is time to."""
        if self._keep_s is None:
            return None
        left = self._next_sweep - time.monotonic()
        if left > 0:
            return left
        try:
            more = self._sweep(self._clock() - self._keep_s)
        except apsw.Error as error:
            self._file.failed(error)
            pause = _SWEEP_RETRY_S
        else:
            pause = _SWEEP_PAUSE_S if more else _SWEEP_EVERY_S
        self._next_sweep = time.monotonic() + pause
        return pause

    def close(self) -> None:
        """Moves the log into the file and closes it."""
        self._file.close(connections.close_writer)

    def _begin(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Locks the file for writing; the jobs that are still in time, the others refused."""
        while jobs := _in_time(jobs, self._late):
            left = min(job.deadline for job in jobs) - time.monotonic()
            try:
                connection = self._file.connection()
                connection.set_busy_timeout(_milliseconds(left))
                connection.execute("BEGIN IMMEDIATE")
            except apsw.BusyError as error:
                self._late = partial(connections.unavailable, error)
                time.sleep(_BUSY_PAUSE_S)
            except apsw.Error as error:
                self._file.failed(error)
                for job in jobs:
                    job.refuse(connections.unavailable(error))
                return ()
            else:
                self._late = _late
                break
        return jobs

    def _undo(self, connection: apsw.Connection, error: apsw.Error) -> None:
        _roll_back(connection)
        self._file.failed(error)

    def _sweep(self, before: float) -> bool:
        """Deletes the first few that nobody wrote to since `before`; whether more may be left."""
        connection = self._file.connection()
        connection.set_busy_timeout(_SWEEP_BUSY_MS)
        expired = connections.rows(connection, _EXPIRED, (before, _SWEEP_CONVERSATIONS))
        replies = connections.rows(connection, _EXPIRED_REPLIES, (self._clock(), _SWEEP_MESSAGES))
        if not expired and not replies:
            return False
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(_DELETE_REPLY, replies)
            messages = len(replies)
            for number, length in expired:
                if messages >= _SWEEP_MESSAGES:
                    break
                connection.execute(_DELETE, (number, before))
                messages += length
            connection.execute("COMMIT")
        except apsw.Error:
            _roll_back(connection)
            raise
        return True


class _File:
    """A connection, and a new one where the old one may be to blame or leads nowhere."""

    def __init__(self, path: Path, connect: Callable[[Path], apsw.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._connection: apsw.Connection | None = None
        self._file: tuple[int, int] | None = None

    def adopt(self, connection: apsw.Connection) -> apsw.Connection:
        self._connection = connection
        self._file = connections.identity(self._path)
        return connection

    def connection(self) -> apsw.Connection:
        if self._connection is None:
            return self.adopt(self._connect(self._path))
        return self._connection

    def failed(self, error: apsw.Error) -> None:
        if isinstance(error, connections.STALE):
            self.close()

    def look(self) -> None:
        """Lets go of a file that was moved away or deleted: nobody would find what is written
        to it."""
        if self._connection is not None and self._file != connections.identity(self._path):
            self.close()

    def close(self, close: Callable[[apsw.Connection], None] = apsw.Connection.close) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):  # it is let go of in any case
                close(connection)


def _run_apart(connection: apsw.Connection, job: Job) -> None:
    connection.execute("SAVEPOINT job")
    try:
        job.run(connection)
    except Exception as error:
        if isinstance(error, connections.STALE) or not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO job")
        job.refuse(connections.unavailable(error) if isinstance(error, apsw.Error) else error)
    connection.execute("RELEASE job")


def _roll_back(connection: apsw.Connection) -> None:
    # After some errors SQLite has rolled back by itself: https://www.sqlite.org/lang_transaction.html
    # (response to errors within a transaction).
    if connection.in_transaction:
        with contextlib.suppress(apsw.Error):
            connection.execute("ROLLBACK")


def _late() -> StoreUnavailable:
    return StoreUnavailable("the store was busy for too long")


def _in_time(jobs: Sequence[Job], late: Callable[[], StoreUnavailable] = _late) -> list[Job]:
    now = time.monotonic()
    live: list[Job] = []
    for job in jobs:
        if job.deadline > now:
            live.append(job)
        else:
            job.refuse(late())
    return live


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
