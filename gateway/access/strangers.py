"""How many wrong credentials one visitor's address may send, whatever tenants they were meant for.

A bucket for each address; while it is empty the next wrong credential is answered 429, not 401.
A right one is never asked about its address: neighbours behind one router share an address, and
so does everybody behind a proxy that is not in `trusted_proxies`, so a stranger among them could
lock them all out. Nothing is lost by it, because no rate of guessing finds 128 random bits.

The buckets are in this process's memory, not where the other limits' state is: a request that is
worth nothing must not cost the store a write, nor be let through when the store is down. So each
of the workers has its part of the rate. There are buckets for the addresses of the last minute,
the newest `_MOST_ADDRESSES` of them.
"""

import time
from collections.abc import Callable
from math import ceil
from typing import Final, NamedTuple, Protocol

import structlog

from gateway.access.claims import Level, LimitName, Take, refilled, wait_s
from gateway.errors import RateLimited

PER_MINUTE: Final = 300
"""Wrong credentials of one address, over all workers of a gateway."""
_LEAST_PER_WORKER: Final = 30
_MOST_ADDRESSES: Final = 10_000
_LIMIT: Final[LimitName] = "wrong_credentials"
# As a bucket is never overdrawn, it is full again after as long as it refills.
_FULL_S: Final = 60.0
_log: Final = structlog.get_logger("gateway.access")


class StrangerRecorder(Protocol):
    """Where throttled strangers are counted."""

    def limited(self, limit: LimitName) -> None:
        """A request was refused because of this limit."""
        ...


class _Bucket(NamedTuple):
    level: Level
    told: bool


class Strangers:
    """The addresses that wrong credentials came from lately.

    `workers` share the rate; `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        recorder: StrangerRecorder,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        size = max(_LEAST_PER_WORKER, ceil(PER_MINUTE / workers))
        self._take = Take(_LIMIT, "", size, 1)
        self._recorder = recorder
        self._clock = clock
        self._buckets: dict[str | None, _Bucket] = {}  # the one that was touched last is last

    def __len__(self) -> int:
        return len(self._buckets)

    def count(self, visitor: str | None) -> None:
        """Counts a wrong credential of this address. Raises `RateLimited` if it is one too many."""
        take, now = self._take, self._clock()
        level, told = self._buckets.pop(visitor, _Bucket(Level(take.size, now), told=False))
        has = refilled(level, take.size, now)
        wait = wait_s(take, has)
        if wait > 0 and not told:
            _log.warning("wrong_credentials", visitor=visitor)
        left = has if wait > 0 else has - take.amount
        self._buckets[visitor] = _Bucket(Level(left, now), told or wait > 0)
        self._forget(now)
        if wait > 0:
            self._recorder.limited(_LIMIT)
            raise RateLimited("too many wrong credentials from one address", retry_after=wait)

    def _forget(self, now: float) -> None:
        while len(self._buckets) > 1:
            oldest = next(iter(self._buckets))
            fresh = self._buckets[oldest].level.at > now - _FULL_S
            if fresh and len(self._buckets) <= _MOST_ADDRESSES:
                return
            del self._buckets[oldest]
