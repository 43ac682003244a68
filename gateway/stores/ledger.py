"""The limits' state in the process itself: for one worker without a store that outlives it."""

import time
from collections.abc import Callable
from typing import Final

from gateway.access.claims import (
    FULL_AGAIN_S,
    SLOT_S,
    Claim,
    Level,
    Shortage,
    Take,
    refilled,
    wait_s,
)

_SWEEP_EVERY_S: Final = 10.0
# A slot is free as soon as a turn ends; how soon that is, nobody knows.
SLOT_WAIT_S: Final = 1.0


class MemoryLedger:
    """A `Ledger` in dictionaries.

    `clock` gives monotonic seconds. Buckets that are full again are forgotten every ten seconds,
    so there are as many as visitors within the last two minutes; slots are where turns run.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._levels: dict[str, Level] = {}
        self._slots: dict[str, dict[str, float]] = {}
        self._next_sweep = 0.0

    def __len__(self) -> int:
        return len(self._levels) + len(self._slots)

    async def reserve(self, claim: Claim) -> Shortage | None:
        """Takes all of the claim; or nothing, and says what is short."""
        now = self._clock()
        self._sweep(now)
        levels = [refilled(self._levels.get(take.name), take.size, now) for take in claim.takes]
        for take, level in zip(claim.takes, levels, strict=True):
            if (wait := wait_s(take, level)) > 0:
                return Shortage(take.limit, wait)
        for slot in claim.slots:
            if len(self._live(slot.name, now)) >= slot.most:
                return Shortage(slot.limit, SLOT_WAIT_S)
        for take, level in zip(claim.takes, levels, strict=True):
            self._levels[take.name] = Level(max(level - take.amount, -take.size), now)
        for slot in claim.slots:
            self._slots.setdefault(slot.name, {})[claim.holder] = now + SLOT_S
        return None

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        """Gives `refunds` back (a negative amount takes more) and the claim's slots."""
        now = self._clock()
        for take in refunds:
            level = refilled(self._levels.get(take.name), take.size, now) + take.amount
            self._levels[take.name] = Level(min(max(level, -take.size), take.size), now)
        for slot in claim.slots:
            holders = self._slots.get(slot.name, {})
            holders.pop(claim.holder, None)
            if not holders:
                self._slots.pop(slot.name, None)

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        """Says that the holders of the claims' slots are alive."""
        until = self._clock() + SLOT_S
        for claim in claims:
            for slot in claim.slots:
                holders = self._slots.get(slot.name, {})
                if claim.holder in holders:
                    holders[claim.holder] = until

    def _live(self, name: str, now: float) -> dict[str, float]:
        holders = self._slots.get(name, {})
        for holder in [holder for holder, until in holders.items() if until <= now]:
            del holders[holder]
        return holders

    def _sweep(self, now: float) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_EVERY_S
        before = now - FULL_AGAIN_S
        for name in [name for name, level in self._levels.items() if level.at < before]:
            del self._levels[name]
