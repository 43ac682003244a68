"""Sheds turns when the event loop cannot keep up, the greediest tenants' first.

A timer measures how late it comes. A loop that is late tick after tick is under pressure: from
then on only so many turns a second are let in, fewer with each late tick and more with each one on
time, until what comes is less than what could be let in. So the work that is let in stays about
what the loop can do in time, and nobody waits in line for an answer that comes too late. While
only a few turns run nobody is refused: then it is something else that holds the loop up.

The turns of a second are divided max-min fair: a tenant that asks for no more than its even share
gets all that it asks for, and what it leaves is for the others.
"""

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isinf
from typing import Final

import structlog

from gateway.errors import Overloaded

_log: Final = structlog.get_logger("gateway.turn")

TICK_S: Final = 0.05
LATE_S: Final = 0.01
_NEXT_TICK_S: Final = 0.01  # after a late one
# Shedding begins after ticks that were late for so long, two at least, and ends after so long
# without a late tick or a refusal.
_PRESSED_S: Final = 0.1
_CALM_S: Final = 1.0
# With fewer running turns than this, something else holds the loop up.
FEW: Final = 32
# The first rate, as a part of the turns that began in a second.
_AT_FIRST: Final = 0.5
# The lowest rate: in turns a second, and as a part of the most that ended in a second lately.
# That record halves in `_LATELY_S`, but stands still while ticks are late during shedding.
_LEAST: Final = 10.0
_AT_LEAST: Final = 0.4
_LATELY_S: Final = 10.0
# Seconds in which the rate halves while ticks are late, and doubles while they are on time: slowly
# once it is above this multiple of the turns that end in a second.
_HALVES_S: Final = 2.0
_DOUBLES_S: Final = 1.0
_CREEPS_S: Final = 5.0
_ENOUGH: Final = 1.1
# After a late tick who asks for more than a share gets less than it, but at least this part.
_BRAKED: Final = 0.3
# Seconds over which rates are averaged: of begun and ended turns, and of a tenant's requests.
_TURNS_S: Final = 0.5
_ASKING_S: Final = 0.4
# With a share below this, a single request looks like too high a rate, so only credit counts.
_MEASURED: Final = 1 / _ASKING_S
# Requests a second below which a tenant is forgotten.
_FORGOTTEN: Final = 0.5
# A tenant may take so many seconds' worth of its share at once.
_BURST_S: Final = 0.1


@dataclass(slots=True)
class _Tenant:
    """What a tenant asks for, and what it may still have: turns a second, and turns."""

    came: int = 0
    rate: float = 0.0
    credit: float = 1.0


class Pressure:
    """How many turns are let in.

    `shedding` is false while the loop keeps up: nobody has to ask then. `lag_s` is how late the
    last tick came, `late` whether that was too late, `rate` how many turns a second are let in.
    `running` tells how many run now.
    """

    def __init__(self, running: Callable[[], int]) -> None:
        self._running = running
        self.shedding = False
        self.lag_s = 0.0
        self.rate = 0.0
        self._ended = 0
        self._began = 0
        self._beginning = self._ending = self._best = 0.0
        self.late = False
        self._pressed_s = 0.0
        self._calm_s = 0.0
        self._refused = self._told = False
        self._level = 0.0
        self._tenants: dict[str, _Tenant] = {}

    def began(self) -> None:
        """A turn was let in, whether it was asked about or not."""
        self._began += 1

    def ended(self) -> None:
        """A turn is over, whatever became of it."""
        self._ended += 1

    def admit(self, tenant: str) -> None:
        """While shedding: counts a request. Raises `Overloaded` if it is one too many."""
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Tenant()
        known.came += 1
        modest = known.rate <= self._level and self._level >= _MEASURED
        if modest and known.came <= max(FEW, min(self._level, self.rate) * _BURST_S):
            return
        if known.credit < 1.0 and self._running() >= FEW:
            self._refused = True
            self._tell()
            raise Overloaded("the event loop is late", retry_after=1)
        known.credit = max(0.0, known.credit - 1.0)

    def tick(self, passed_s: float, late_s: float) -> None:
        """`passed_s` seconds have passed since the last tick, `late_s` more than should have."""
        self.lag_s = late_s
        self.late = late_s > LATE_S
        weight = min(1.0, passed_s / _TURNS_S)
        self._beginning += weight * (self._began / passed_s - self._beginning)
        self._ending += weight * (self._ended / passed_s - self._ending)
        self._began = self._ended = 0
        if not (self.late and self.shedding):
            self._best *= 0.5 ** (passed_s / _LATELY_S)
        self._best = max(self._ending, self._best)
        if self.shedding:
            self._adapt(passed_s)
            return
        self._pressed_s = self._pressed_s + passed_s if self.late else 0.0
        if self._pressed_s >= _PRESSED_S and self._pressed_s > passed_s:
            self.shedding = True
            self._pressed_s = self._calm_s = 0.0
            self.rate = max(_LEAST, self._best * _AT_LEAST, self._beginning * _AT_FIRST)
            self._level = self.rate

    def _tell(self) -> None:
        """Once for each time that turns are refused: a loop that is only late harms nobody."""
        if not self._told:
            self._told = True
            lag_ms = round(self.lag_s * 1000)
            _log.warning("shedding", loop_lag_ms=lag_ms, running=self._running())

    def _adapt(self, passed_s: float) -> None:
        if self.late:
            # If something else than turns makes the loop late, no cut helps: the rate has a floor.
            cut = self.rate * 0.5 ** (passed_s / _HALVES_S)
            self.rate = max(_LEAST, self._best * _AT_LEAST, cut)
        elif self._refused:
            doubles_s = _DOUBLES_S if self.rate < self._ending * _ENOUGH else _CREEPS_S
            slack = 1 - min(1.0, self.lag_s / LATE_S)
            self.rate *= 2 ** (slack * passed_s / doubles_s)
        self._calm_s = 0.0 if self.late or self._refused else self._calm_s + passed_s
        self._refused = False
        if self._calm_s >= _CALM_S:
            self.shedding = False
            self._tenants.clear()
            if self._told:
                self._told = False
                _log.info("shedding_ended")
        else:
            self._share(passed_s)

    def _share(self, passed_s: float) -> None:
        """Divides the turns of a second by what each tenant asked for."""
        weight = min(1.0, passed_s / _ASKING_S)
        for name, tenant in list(self._tenants.items()):
            tenant.rate += weight * (tenant.came / passed_s - tenant.rate)
            tenant.came = 0
            if tenant.rate < _FORGOTTEN and tenant.credit >= 1.0:
                del self._tenants[name]
        rates = [tenant.rate for tenant in self._tenants.values()]
        self._level = _even_share(rates, self.rate)
        # Only who asks for too much is held back further while the loop is late.
        brake = min(1.0, max(_BRAKED, 1.5 - self.lag_s / LATE_S))
        # Where nobody asks for too much the level is infinite.
        share = self.rate / max(1, len(rates)) if isinf(self._level) else self._level
        most = max(1.0, share * _BURST_S)
        for tenant in self._tenants.values():
            gets = share * (brake if tenant.rate > self._level else 1.0)
            tenant.credit = min(most, tenant.credit + gets * passed_s)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measures the running loop until the end of the block."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        began, due_s = loop.time(), TICK_S

        def due() -> None:
            nonlocal timer, began, due_s
            now = loop.time()
            passed = max(now - began, due_s)
            self.tick(passed, passed - due_s)
            began, due_s = now, _NEXT_TICK_S if self.late else TICK_S
            timer = loop.call_later(due_s, due)

        timer = loop.call_later(TICK_S, due)
        try:
            yield
        finally:
            timer.cancel()


def _even_share(rates: Collection[float], total: float) -> float:
    """The most per tenant such that all together get `total`, and who asks less gets it all."""
    left = total
    for place, asked in enumerate(sorted(rates)):
        even = left / (len(rates) - place)
        if asked >= even:
            return even
        left -= asked
    return inf
