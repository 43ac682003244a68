"""Limits over a ledger in memory, for the tests of what a request claims and gives back."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import count

from gateway.access.claims import Claim, Shortage, Take
from gateway.access.limits import Allowance, Held, Limits
from gateway.errors import RateLimited, StoreUnavailable
from gateway.messages import Principal, Usage
from gateway.stores.ledger import MemoryLedger

SITE = Principal("acme", "site", "default")
OTHER_KEY = Principal("acme", "app", "default")
OTHER_TENANT = Principal("globex", "site", "default")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counts:
    def __init__(self) -> None:
        self.limits: list[str] = []
        self.unchecked_requests = 0

    def limited(self, limit: str) -> None:
        self.limits.append(limit)

    def unchecked(self) -> None:
        self.unchecked_requests += 1


class Gone:
    """A ledger that cannot be reached."""

    renewals = 0

    async def reserve(self, claim: Claim) -> Shortage | None:
        raise StoreUnavailable("down")

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        raise StoreUnavailable("down")

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        self.renewals += 1
        raise StoreUnavailable("down")


class Slow(MemoryLedger):
    """A ledger whose answers come when `gate` is set: what they are about has happened by then,
    or in `settle` has not."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.gate = asyncio.Event()
        self.gate.set()
        self.renewed: list[str] = []
        self.settled = 0
        self.faults = 0

    async def reserve(self, claim: Claim) -> Shortage | None:
        short = await super().reserve(claim)
        await self.gate.wait()
        return short

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        await self.gate.wait()
        await super().settle(claim, refunds)
        self.settled += 1

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("planted")
        self.renewed += [claim.holder for claim in claims]
        await super().renew(claims)


class Rig:
    """Limits with a clock that stands still until it is told."""

    def __init__(
        self,
        tenants: dict[str, Allowance],
        keys: dict[tuple[str, str], Allowance] | None = None,
        visitors: dict[str, Allowance] | None = None,
    ) -> None:
        self.clock = Clock()
        self.counts = Counts()
        self.ledger = Slow(self.clock)
        self.limits = Limits(tenants, keys or {}, visitors or {}, self.ledger, self.counts, names())

    def holds(self, visitor: str) -> AbstractAsyncContextManager[Held]:
        """A turn of that visitor, which runs until the end of the block."""
        return self.limits.admitted(SITE, visitor=visitor, body_bytes=40, max_tokens=100)

    async def ends(
        self,
        principal: Principal = SITE,
        *,
        usage: Usage | None = None,
        deltas: int = 0,
        visitor: str | None = None,
        body_bytes: int = 40,
    ) -> bool:
        """Whether a turn is admitted; it ends at once and costs what is given."""
        try:
            async with self.limits.admitted(
                principal, visitor=visitor, body_bytes=body_bytes, max_tokens=100
            ) as held:
                held.spend(usage, deltas)
        except RateLimited:
            return False
        return True

    async def admits(
        self, principal: Principal = SITE, *, tries: int, visitor: str | None = None
    ) -> int:
        """How many of so many tries are admitted."""
        return sum([await self.ends(principal, visitor=visitor) for _ in range(tries)])


def names() -> Callable[[], str]:
    """What makes the names of holders."""
    numbers = count()
    return lambda: f"holder-{next(numbers)}"
