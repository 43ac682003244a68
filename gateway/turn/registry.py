"""The turns that this worker runs: how many there may be, and how they end when it stops."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from gateway.errors import Drained, Draining, GatewayError, Overloaded

Stop = Callable[[GatewayError], None]

_KEPT: Final = 10


class RunningTurns:
    """Counts places and knows how to end each running turn.

    Of `limit` places the last tenth is for tenants, of `tenants` in all, that hold less than an
    even share of them: a flood of long turns leaves room for whoever comes after it. `notice` is
    the first step of a stop (not ready, still accepting), `drain` the second.
    """

    def __init__(self, limit: int, tenants: int = 1) -> None:
        self.stopping = False
        self._limit = limit
        self._open_to_all = limit - limit // _KEPT if tenants > 1 else limit
        self._even_share = limit / max(1, tenants)
        self._held: Counter[str] = Counter()
        self._refusing = False
        self._over = False
        self._places = 0
        self._waiting = 0
        self._stops: set[Stop] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def count(self) -> int:
        """Requests that hold a place now."""
        return self._places

    @property
    def at_work(self) -> int:
        """Those of them that do not wait for their body: only these can hold the event loop up."""
        return self._places - self._waiting

    @property
    def crowded(self) -> bool:
        """Whether there is no room for some tenants."""
        return self._places >= self._open_to_all

    def check_room(self, tenant: str) -> None:
        """Raises `Overloaded` if no place is left that the tenant may take."""
        if self._places >= self._open_to_all and (
            self._places >= self._limit or self._held[tenant] >= self._even_share
        ):
            raise Overloaded("turns_in_flight reached", retry_after=1)

    @contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """A place for one request. Raises `Draining` or `Overloaded`."""
        if self._refusing:
            raise Draining("this worker is stopping")
        self.check_room(tenant)
        self._places += 1
        self._held[tenant] += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._places -= 1
            self._held[tenant] -= 1
            if not self._places:
                self._empty.set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A request that has a place waits for its body in the block."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

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
