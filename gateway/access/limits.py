"""How much a tenant, a key and a visitor may ask: what each request claims, and what it gives back.

Requests a minute, tokens a minute and turns at once, for a tenant, for each of its keys and for
each of its visitors. A request is claimed once, before its body is read; it takes from every limit
that applies, or from none and is refused. When it is over, its slots are free and the tokens that
it did not use are back.

Tokens are claimed as a quarter of the body's bytes (once it is read, where no length is declared)
and the most that the agent may generate. What they cost in the end is the usage that the upstream
told, else the claimed input and one token per delta; nothing if nothing was generated.

If the ledger cannot be reached, a request that only requests and turns limit is let through and
counted, because its conversation is in the same store and decides; one with a limit on tokens is
refused, because tokens are money.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple, Protocol

import structlog

from gateway.access.claims import SLOT_S, Claim, Ledger, LimitName, Slot, Take
from gateway.errors import RateLimited, StoreUnavailable
from gateway.messages import Principal, Usage

_BYTES_PER_TOKEN: Final = 4
OUTPUT_TOKENS: Final = 1024
"""What a turn is expected to generate at most where its agent has no `max_tokens`."""
_TOKENS: Final[Collection[LimitName]] = ("tokens_per_minute", "tokens_per_minute_per_client")
_SETTLE_S: Final = 5.0
_log: Final = structlog.get_logger("gateway.access")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a tenant, a key or a visitor may have; None where there is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_turns: int | None = None


class _Names(NamedTuple):
    """What the limits of an allowance are called."""

    requests: LimitName
    tokens: LimitName
    turns: LimitName


_OWN: Final = _Names("requests_per_minute", "tokens_per_minute", "concurrent_turns")
_PER_CLIENT: Final = _Names(
    "requests_per_minute_per_client",
    "tokens_per_minute_per_client",
    "concurrent_turns_per_client",
)


class LimitRecorder(Protocol):
    """Where limits are counted."""

    def limited(self, limit: LimitName) -> None:
        """A request was refused because of this limit."""
        ...

    def unchecked(self) -> None:
        """A request was let through because its limits could not be read."""
        ...


class Held:
    """What one admitted request took.

    `claim` is empty where nothing limits the request.
    """

    def __init__(self, limits: "Limits", claim: Claim, input_tokens: int | None) -> None:
        self.claim = claim
        self._limits = limits
        self._input_tokens = input_tokens
        self._spent = 0
        self._over = False

    async def measured(self, body_bytes: int) -> None:
        """The body is read: claims its tokens, if its length had not been declared.

        Raises `RateLimited` and `StoreUnavailable`.
        """
        if self._input_tokens is None:
            self._input_tokens = _tokens_of(body_bytes)
            self.claim = await self._limits.claim_more(self.claim, self._input_tokens)

    def spend(self, usage: Usage | None, deltas: int) -> None:
        """What the turn cost in the end: nothing, if no usage was told and nothing generated."""
        if usage is not None:
            self._spent = usage.input_tokens + usage.output_tokens
        else:
            self._spent = (self._input_tokens or 0) + deltas if deltas else 0

    async def give_back(self) -> None:
        """Frees the slots and settles the tokens, once. Never raises for the store's sake.

        It happens wholly even if the caller is cancelled while it waits.
        """
        if self._over:
            return
        self._over = True
        await self._limits.settle(self.claim, self._spent)


class Limits:
    """The limits of every tenant and key, by name, and of each visitor of a tenant.

    `new_id` makes a unique name for a request's slots. `renewing` has to run while turns do.
    """

    def __init__(
        self,
        tenants: Mapping[str, Allowance],
        keys: Mapping[tuple[str, str], Allowance],
        visitors: Mapping[str, Allowance],
        ledger: Ledger,
        recorder: LimitRecorder,
        new_id: Callable[[], str],
    ) -> None:
        self._tenants = dict(tenants)
        self._keys = dict(keys)
        self._visitors = dict(visitors)
        self._ledger = ledger
        self._recorder = recorder
        self._new_id = new_id
        self._live: dict[str, Claim] = {}
        self._settling: set[asyncio.Task[None]] = set()

    def claim(
        self, principal: Principal, *, visitor: str | None, tokens: int | None, holder: str = ""
    ) -> Claim:
        """What a request of `principal` takes: a turn that may cost `tokens`, or with None a
        request that runs no turn. `visitor` is an address."""
        takes: list[Take] = []
        slots: list[Slot] = []
        for owner, allowed, names in self._bounds(principal, visitor):
            if size := allowed.requests_per_minute:
                takes.append(Take(names.requests, f"requests:{owner}", size, 1))
            if tokens is None:
                continue
            if size := allowed.tokens_per_minute:
                takes.append(Take(names.tokens, f"tokens:{owner}", size, min(tokens, size)))
            if most := allowed.concurrent_turns:
                slots.append(Slot(names.turns, f"turns:{owner}", most))
        return Claim(holder, tuple(takes), tuple(slots))

    def _bounds(
        self, principal: Principal, visitor: str | None
    ) -> Iterator[tuple[str, Allowance, _Names]]:
        """Whose limits hold, by the name of their buckets and slots."""
        tenant = principal.tenant
        if (allowed := self._tenants.get(tenant)) is not None:
            yield f"tenant:{tenant}", allowed, _OWN
        if visitor is not None and (allowed := self._visitors.get(tenant)) is not None:
            yield f"tenant:{tenant}:{visitor}", allowed, _PER_CLIENT
        if (allowed := self._keys.get((tenant, principal.key))) is not None:
            yield f"key:{tenant}/{principal.key}", allowed, _OWN

    @asynccontextmanager
    async def admitted(
        self,
        principal: Principal,
        *,
        visitor: str | None,
        body_bytes: int | None,
        max_tokens: int | None,
    ) -> AsyncIterator[Held]:
        """The request's claim, held until the end of the block unless given back before.

        `body_bytes` is the declared length; None is none, and the body's tokens are claimed when
        it is `measured`. Raises `RateLimited`, and `StoreUnavailable` where tokens are limited.
        """
        input_tokens = None if body_bytes is None else _tokens_of(body_bytes)
        tokens = (input_tokens or 0) + (max_tokens or OUTPUT_TOKENS)
        claim = self.claim(principal, visitor=visitor, tokens=tokens, holder=self._new_id())
        held = Held(self, await self._take(claim), input_tokens)
        try:
            yield held
        finally:
            await held.give_back()

    async def claim_more(self, claim: Claim, tokens: int) -> Claim:
        """The claim with so many tokens more, which are taken now.

        Raises `RateLimited` and `StoreUnavailable`.
        """
        takes = tuple(
            take._replace(amount=min(take.amount + tokens, take.size))
            if take.limit in _TOKENS
            else take
            for take in claim.takes
        )
        more = tuple(
            take._replace(amount=take.amount - before.amount)
            for before, take in zip(claim.takes, takes, strict=True)
            if take.amount > before.amount
        )
        await self._take(Claim(self._new_id(), more))
        return Claim(claim.holder, takes, claim.slots)

    async def admit_call(self, principal: Principal, *, visitor: str | None) -> None:
        """Takes one request that runs no turn. Raises `RateLimited`."""
        claim = self.claim(principal, visitor=visitor, tokens=None, holder=self._new_id())
        await self._take(claim)

    @asynccontextmanager
    async def renewing(self, every_s: float = SLOT_S / 3) -> AsyncIterator[None]:
        """Keeps the slots of running turns; at the end waits for what is still being settled."""
        task = asyncio.create_task(self._renew(every_s))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if self._settling:
                await asyncio.wait(self._settling, timeout=_SETTLE_S)

    async def renew(self) -> None:
        """Says once that the turns that run are alive."""
        if self._live:
            with suppress(StoreUnavailable):
                await self._ledger.renew(tuple(self._live.values()))

    async def settle(self, claim: Claim, spent: int) -> None:
        """Gives a claim back of which `spent` tokens were used."""
        self._live.pop(claim.holder, None)
        refunds = tuple(
            take._replace(amount=take.amount - spent)
            for take in claim.takes
            if take.limit in _TOKENS and take.amount != spent
        )
        if not refunds and not claim.slots:
            return
        task = asyncio.create_task(self._settle(claim, refunds))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        await asyncio.shield(task)

    async def _take(self, claim: Claim) -> Claim:
        """The claim, or an empty one where nothing was taken."""
        if not claim.takes and not claim.slots:
            return claim
        if claim.slots:
            # From now on: a claim whose answer comes late is renewed, or given back, all the same.
            self._live[claim.holder] = claim
        try:
            short = await self._ledger.reserve(claim)
        except StoreUnavailable:
            self._live.pop(claim.holder, None)
            if any(take.limit in _TOKENS for take in claim.takes):
                raise
            self._recorder.unchecked()
            return Claim(claim.holder)
        except BaseException:
            # Cancelled: whether it was taken is not known, so it is given back if it was.
            await self._undo(claim)
            raise
        if short is not None:
            self._live.pop(claim.holder, None)
            self._recorder.limited(short.limit)
            raise RateLimited(f"over {short.limit}", retry_after=short.wait_s)
        return claim

    async def _undo(self, claim: Claim) -> None:
        # Slots only: tokens given back that were never taken would be a gift.
        await self.settle(Claim(claim.holder, (), claim.slots), 0)

    async def _settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        try:
            async with asyncio.timeout(_SETTLE_S):
                await self._ledger.settle(claim, refunds)
        except (StoreUnavailable, TimeoutError):
            # The slots free themselves; the tokens come back with time.
            _log.warning("limits_not_settled")

    async def _renew(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.renew()
            except Exception:  # noqa: BLE001 - or no slot would ever be renewed again
                _log.exception("renewal_fault")


def _tokens_of(body_bytes: int) -> int:
    return ceil(body_bytes / _BYTES_PER_TOKEN)
