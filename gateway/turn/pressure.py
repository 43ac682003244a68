"""Sheds requests when the event loop cannot keep up, the greediest tenants' first.

A timer measures how late it comes. While it is late by more than `LATE_S`, each tick lets fewer
requests in than came in the one before, and a tenant that asks for no more than its even share of
them is let in always. Once the timer is on time again the share grows back. Refusing costs a
fraction of a turn, so the turns that run get the time, and nobody waits in line for an answer
that comes too late.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.errors import Overloaded

TICK_S: Final = 0.1
LATE_S: Final = 0.15
_LEAST: Final = 0.05
_CUT: Final = 0.7
_GROW: Final = 0.1


class Pressure:
    """How much of what comes in is let in, tick by tick.

    `share` is 1.0 while the loop keeps up.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self.lag_s = 0.0
        self._quota = float("inf")
        self._came: Counter[str] = Counter()

    def admit(self, tenant: str) -> None:
        """Counts a request. Raises `Overloaded` if it is more than can be served in time."""
        self._came[tenant] += 1
        if self._came[tenant] > self._quota:
            raise Overloaded("the event loop is late", retry_after=1)

    def tick(self, late_s: float) -> None:
        """The next tick begins; the timer was `late_s` late."""
        self.lag_s = late_s
        if late_s > LATE_S:
            self.share = max(_LEAST, self.share * _CUT)
        else:
            self.share = min(1.0, self.share + _GROW)
        came, self._came = self._came, Counter()
        if self.share >= 1.0:
            self._quota = float("inf")
        else:
            # At least one each: whoever asks little is not who makes the loop late.
            self._quota = max(1.0, _even_share(came, came.total() * self.share))

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measures the running loop until the end of the block."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def due(at: float) -> None:
            nonlocal timer
            now = loop.time()
            self.tick(now - at)
            timer = loop.call_at(now + TICK_S, due, now + TICK_S)

        due(loop.time())
        try:
            yield
        finally:
            if timer is not None:
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
