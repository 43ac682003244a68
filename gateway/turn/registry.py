"""The turns that this worker runs: how many there may be, and how they end when it stops."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import Drained, Draining, GatewayError, Overloaded

Stop = Callable[[GatewayError], None]


class RunningTurns:
    """Counts places and knows how to end each running turn.

    `notice` is the first step of a stop (not ready, still accepting), `drain` the second.
    """

    def __init__(self, limit: int) -> None:
        self.stopping = False
        self._limit = limit
        self._refusing = False
        self._over = False
        self._places = 0
        self._stops: set[Stop] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def count(self) -> int:
        """Requests that hold a place now."""
        return self._places

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request. Raises `Draining` or `Overloaded`."""
        if self._refusing:
            raise Draining("this worker is stopping")
        if self._places >= self._limit:
            raise Overloaded("turns_in_flight reached", retry_after=1)
        self._places += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._places -= 1
            if not self._places:
                self._empty.set()

    def check(self) -> None:
        """Raises `Draining` once running turns are told to end: none may begin any more."""
        if self._over:
            raise Draining("this worker has stopped")

    @contextmanager
    def running(self, stop: Stop) -> Iterator[None]:
        """Lets `drain` end the turn with `stop(fault)`."""
        self._stops.add(stop)
        try:
            yield
        finally:
            self._stops.discard(stop)

    def notice(self) -> None:
        """The worker will stop: readiness goes, new turns still come."""
        self.stopping = True

    async def drain(self, drain_s: float, *, settle_s: float = 5.0) -> bool:
        """Refuses new turns and waits until the running ones have ended.

        After `drain_s` seconds they are told to end; true if all did within `settle_s` more.
        """
        self.stopping = self._refusing = True
        if await self._emptied(drain_s):
            return True
        self._over = True
        for stop in tuple(self._stops):
            stop(Drained("the worker stopped"))
        return await self._emptied(settle_s)

    async def _emptied(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
