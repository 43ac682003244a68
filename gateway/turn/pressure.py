"""Sheds requests when the event loop cannot keep up, the greediest tenants' first.

A timer measures how late it comes and how busy its process was meanwhile. While it has been late
by more than `LATE_S` for half a second, of its own doing, each tick lets fewer requests in than
came in the one before; a tenant that asks for no more than its even share of them is let in
always. Once the timer is on time the share grows back. Refusing costs a fraction of a turn, so
the turns that run get the time, and nobody waits in line for an answer that comes too late.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.errors import Overloaded

TICK_S: Final = 0.1
LATE_S: Final = 0.05
_LATE_TICKS: Final = 4
# Below that it is another process that keeps the loop from running: shedding would not help.
_BUSY: Final = 0.8
_LEAST: Final = 0.05
_LEAST_REQUESTS: Final = 5.0
_CUT: Final = 0.8
_GROW: Final = 0.05


class Pressure:
    """How much of what comes in is let in, tick by tick.

    `share` is 1.0 while the loop keeps up; `lag_s` is how late the last tick came.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self.lag_s = 0.0
        self._late_ticks = 0
        self._quota = float("inf")
        self._came: Counter[str] = Counter()

    def admit(self, tenant: str) -> None:
        """Counts a request. Raises `Overloaded` if it is more than can be served in time."""
        self._came[tenant] += 1
        if self._came[tenant] > self._quota:
            raise Overloaded("the event loop is late", retry_after=1)

    def tick(self, late_s: float, busy: float) -> None:
        """The next tick begins: the timer was `late_s` late, its process at work for the part
        `busy` of the time."""
        self.lag_s = late_s
        if late_s > LATE_S and busy > _BUSY:
            self._late_ticks += 1
            if self._late_ticks >= _LATE_TICKS:
                self.share = max(_LEAST, self.share * _CUT)
        else:
            self._late_ticks = 0
            self.share = min(1.0, self.share + _GROW)
        came, self._came = self._came, Counter()
        if self.share >= 1.0:
            self._quota = float("inf")
        else:
            # A few each in any case: whoever asks little is not who makes the loop late.
            share = _even_share(came, came.total() * self.share)
            self._quota = max(_LEAST_REQUESTS, share)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measures the running loop until the end of the block."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        began, worked = loop.time(), time.process_time()

        def due() -> None:
            nonlocal timer, began, worked
            now, work = loop.time(), time.process_time()
            passed = now - began
            self.tick(passed - TICK_S, (work - worked) / passed if passed > 0 else 0.0)
            began, worked = now, work
            timer = loop.call_later(TICK_S, due)

        timer = loop.call_later(TICK_S, due)
        try:
            yield
        finally:
            timer.cancel()


def _even_share(came: Counter[str], total: float) -> float:
    """The most per tenant such that all together get `total`, and who asks less gets it all."""
    left = total
    for place, (_, asked) in enumerate(reversed(came.most_common())):
        even = left / (len(came) - place)
        if asked >= even:
            return even
        left -= asked
    return float("inf")
