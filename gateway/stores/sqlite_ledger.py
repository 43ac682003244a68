"""The limits' state in the SQLite file, shared by the workers of one machine.

A claim is one transaction in the store's writer thread, committed together with what else waits
there. Times are readings of the machine's monotonic clock, which its processes share: a jump of
the wall clock fills no bucket. After a restart of the machine the clock begins anew; what was
written before lies in the future then, and counts as full and as dead.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar

import apsw

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
from gateway.stores.connection import rows
from gateway.stores.ledger import SLOT_WAIT_S

_LEVEL: Final = "SELECT amount, at FROM limit_levels WHERE name = ?"
_SET_LEVEL: Final = """
INSERT INTO limit_levels (name, amount, at) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET amount = excluded.amount, at = excluded.at
"""
# A time further ahead than a slot lasts was written before the machine's last start.
_FREE_DEAD: Final = "DELETE FROM limit_slots WHERE name = ? AND (until <= ? OR until > ?)"
_HELD: Final = "SELECT count(*) FROM limit_slots WHERE name = ?"
_HOLD: Final = "INSERT OR REPLACE INTO limit_slots (name, holder, until) VALUES (?, ?, ?)"
_FREE: Final = "DELETE FROM limit_slots WHERE name = ? AND holder = ?"
_RENEW: Final = "UPDATE limit_slots SET until = ? WHERE name = ? AND holder = ?"
_FORGET: Final = """
DELETE FROM limit_levels WHERE name IN (
    SELECT name FROM limit_levels WHERE at < ? UNION ALL
    SELECT name FROM limit_levels WHERE at > ? LIMIT 500
)
"""
# Those of a process that died; no more than turns ran at once.
_FORGET_SLOTS: Final = "DELETE FROM limit_slots WHERE until <= ? OR until > ?"
# With the 500 above, about as many buckets as a worker can serve visitors in that time.
_SWEEP_EVERY_S: Final = 1.0

T = TypeVar("T")


class Write(Protocol):
    """Runs work in the writer thread, inside its transaction. Raises `StoreUnavailable`, and sooner
    where it is `hurried` and the file was locked the last time."""

    def __call__(
        self, work: Callable[[apsw.Connection], T], /, *, hurried: bool = False
    ) -> Awaitable[T]:
        """The awaitable gives what `work` returns, once it is committed."""
        ...


class SqliteLedger:
    """A `Ledger` in the file that `write` writes to; `clock` gives monotonic seconds."""

    def __init__(self, write: Write, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._next_sweep = 0.0

    async def reserve(self, claim: Claim) -> Shortage | None:
        """Takes all of the claim; or nothing, and says what is short."""
        now = self._clock()
        sweep = now >= self._next_sweep
        if sweep:
            self._next_sweep = now + _SWEEP_EVERY_S
        return await self._write(partial(_reserve, claim, self._clock, sweep), hurried=True)

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        """Gives `refunds` back (a negative amount takes more) and the claim's slots."""
        await self._write(partial(_settle, claim, refunds, self._clock))

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        """Says that the holders of the claims' slots are alive."""
        held = [(slot.name, claim.holder) for claim in claims for slot in claim.slots]
        if held:
            await self._write(partial(_renew, held, self._clock() + SLOT_S))


def _level(connection: apsw.Connection, take: Take, now: float) -> float:
    found = rows(connection, _LEVEL, (take.name,))
    return refilled(Level(*found[0]) if found else None, take.size, now)


def _reserve(
    claim: Claim, clock: Callable[[], float], sweep: bool, connection: apsw.Connection
) -> Shortage | None:
    # Read inside the transaction: what another process committed before it is not later than that.
    now = clock()
    if sweep:
        connection.execute(_FORGET, (now - FULL_AGAIN_S, now + FULL_AGAIN_S))
        connection.execute(_FORGET_SLOTS, (now, now + SLOT_S))
    levels = [_level(connection, take, now) for take in claim.takes]
    for take, level in zip(claim.takes, levels, strict=True):
        if (wait := wait_s(take, level)) > 0:
            return Shortage(take.limit, wait)
    for slot in claim.slots:
        connection.execute(_FREE_DEAD, (slot.name, now, now + SLOT_S))
        if rows(connection, _HELD, (slot.name,))[0][0] >= slot.most:
            return Shortage(slot.limit, SLOT_WAIT_S)
    for take, level in zip(claim.takes, levels, strict=True):
        connection.execute(_SET_LEVEL, (take.name, max(level - take.amount, -take.size), now))
    for slot in claim.slots:
        connection.execute(_HOLD, (slot.name, claim.holder, now + SLOT_S))
    return None


def _settle(
    claim: Claim, refunds: tuple[Take, ...], clock: Callable[[], float], connection: apsw.Connection
) -> None:
    now = clock()
    for take in refunds:
        level = _level(connection, take, now) + take.amount
        level = min(max(level, -take.size), take.size)
        connection.execute(_SET_LEVEL, (take.name, level, now))
    for slot in claim.slots:
        connection.execute(_FREE, (slot.name, claim.holder))


def _renew(held: list[tuple[str, str]], until: float, connection: apsw.Connection) -> None:
    connection.executemany(_RENEW, ((until, *entry) for entry in held))
