"""A thread that owns a connection, and the bounded queue through which the event loop uses it.

The loop never waits for the disk. A job that is not begun within `WAIT_S` is refused by the
thread itself, so the caller who reads `StoreUnavailable` knows that nothing happened; only a
disk that hangs for longer than that leaves the outcome open. A caller who is cancelled leaves
its job behind: it is done wholly, and its outcome dropped.

After a refusal `hurried` jobs wait for a fourth of that until some job succeeds: what begins a turn
need not wait at each of its steps, but what a turn has earned is still stored if it can be.

The thread is a daemon: a process ends although nobody called `stop`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, Generic, Protocol, TypeVar

import apsw

from gateway.errors import StoreUnavailable

WAIT_S: Final = 2.0
_SHORT_WAIT_S: Final = WAIT_S / 4
# How much longer a caller waits for the thread's word; it runs out only if the disk hangs.
_GRACE_S: Final = 1.0
_START_S: Final = 10.0
_STOP_S: Final = 5.0

T = TypeVar("T")


class Job(Protocol):
    """Something to be done with a connection before `deadline` (monotonic seconds)."""

    deadline: float

    def run(self, connection: apsw.Connection) -> None:
        """Does it and keeps the value; raises what the work raises."""
        ...

    def refuse(self, error: Exception) -> None:
        """Makes `error` the outcome."""
        ...

    def settle(self) -> None:
        """Hands the outcome to the caller; called in the event loop's thread."""
        ...


class Desk(Protocol):
    """What a worker does with its jobs. Every method runs in the worker's thread."""

    def open(self) -> None:
        """Makes ready; raises `StoreUnavailable`."""
        ...

    def serve(self, jobs: Sequence[Job]) -> None:
        """Gives each job its outcome."""
        ...

    def rest(self) -> float | None:
        """Called between jobs: does a short piece of housekeeping, if any is due, and gives the
        seconds until the next, or None."""
        ...

    def close(self) -> None:
        """Lets go of everything."""
        ...


class Worker:
    """A desk with its own thread.

    At most `pending` jobs wait; up to `together` of them are served at once.
    """

    def __init__(self, name: str, desk: Desk, *, pending: int, together: int) -> None:
        self._desk = desk
        self._pending = pending
        self._together = together
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._open = False
        self._refusing = False
        self._thread = Thread(target=self._main, name=name, daemon=True)

    async def start(self) -> None:
        """Opens the desk. Raises `StoreUnavailable`."""
        self._thread.start()
        try:
            async with asyncio.timeout(_START_S):
                await self._started
            self._open = True
        except TimeoutError:
            raise StoreUnavailable("the store's file did not open in time") from None
        finally:
            if not self._open:  # whenever it opens after all, it is to close at once
                self._queue.put(None)

    async def call(self, work: Callable[[apsw.Connection], T], *, hurried: bool = False) -> T:
        """What `work` returns or raises. Raises `StoreUnavailable`, see the module."""
        if not self._open:
            raise StoreUnavailable("the store is not open")
        if self._queue.qsize() >= self._pending:
            raise StoreUnavailable("too much is waiting for the store")
        future: asyncio.Future[T] = self._loop.create_future()
        wait_s = _SHORT_WAIT_S if hurried and self._refusing else WAIT_S
        self._queue.put(_Call(work, future, time.monotonic() + wait_s))
        hung = _refusal(future, StoreUnavailable("the store's disk does not answer"))
        clock = self._loop.call_later(wait_s + _GRACE_S, hung)
        try:
            value = await future
        except StoreUnavailable:
            self._refusing = True
            raise
        finally:
            clock.cancel()
        self._refusing = False
        return value

    async def stop(self) -> None:
        """Serves what is waiting, closes the desk and ends the thread; waits 5 s at most."""
        if not self._open:
            return
        self._open = False
        self._queue.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._ended

    def _main(self) -> None:
        try:
            self._desk.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller of start gets it
            self._post(_refusal(self._started, error))
            return
        self._post(_success(self._started, None))
        try:
            self._work()
        finally:
            self._desk.close()
            self._post(_success(self._ended, None))

    def _work(self) -> None:
        more = True
        while more:
            jobs, more = self._take(self._desk.rest())
            if jobs:
                self._serve(jobs)

    def _take(self, within_s: float | None) -> tuple[list[Job], bool]:
        """The jobs to serve together, and whether others may follow."""
        jobs: list[Job] = []
        with contextlib.suppress(Empty):
            job = self._queue.get(timeout=within_s)
            while job is not None:
                jobs.append(job)
                if len(jobs) == self._together:
                    return jobs, True
                job = self._queue.get_nowait()
            return jobs, False
        return jobs, True

    def _serve(self, jobs: list[Job]) -> None:
        try:
            self._desk.serve(jobs)
        except Exception as error:  # noqa: BLE001 - a fault here must not end the thread
            for job in jobs:
                job.refuse(error)

        def settle() -> None:
            for job in jobs:
                job.settle()

        self._post(settle)

    def _post(self, call: Callable[[], None]) -> None:
        # A loop that is closed has nobody waiting.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)


class _Call(Generic[T]):
    """A job and the future of the caller who awaits it."""

    __slots__ = ("_future", "_settle", "_work", "deadline")

    def __init__(
        self, work: Callable[[apsw.Connection], T], future: asyncio.Future[T], deadline: float
    ) -> None:
        self._work = work
        self._settle = _refusal(future, StoreUnavailable("the job was not served"))
        self._future = future
        self.deadline = deadline

    def run(self, connection: apsw.Connection) -> None:
        self._settle = _success(self._future, self._work(connection))

    def refuse(self, error: Exception) -> None:
        self._settle = _refusal(self._future, error)

    def settle(self) -> None:
        self._settle()


def _success(future: asyncio.Future[T], value: T) -> Callable[[], None]:
    def settle() -> None:
        if not future.done():
            future.set_result(value)

    return settle


def _refusal(future: asyncio.Future[T], error: Exception) -> Callable[[], None]:
    def settle() -> None:
        if not future.done():
            future.set_exception(error)

    return settle
