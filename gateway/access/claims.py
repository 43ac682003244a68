"""What a request takes from its limits, and the port behind which the limits' state lives.

"N per minute" is a bucket of N that refills by N/60 a second; "N at once" is N slots. A claim
takes from all of its buckets and slots, or from none of them. A bucket may be overdrawn by what a
turn turned out to cost, at most by its own size, so it is full again after two minutes at the
latest and nothing older than that has to be remembered.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, get_args

LimitName = Literal[
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_turns",
    "requests_per_minute_per_client",
    "tokens_per_minute_per_client",
    "concurrent_turns_per_client",
    "wrong_credentials",
]
LIMIT_NAMES: Final[tuple[LimitName, ...]] = get_args(LimitName)

FULL_AGAIN_S: Final = 120.0
"""After so many seconds without a claim every bucket is full."""
SLOT_S: Final = 30.0
"""A slot that nobody renews for so many seconds is free: its holder is dead."""


class Take(NamedTuple):
    """`amount` (requests or tokens) out of the bucket `name` that holds `size`."""

    limit: LimitName
    name: str
    size: int
    amount: float


class Slot(NamedTuple):
    """One of the `most` slots of `name`."""

    limit: LimitName
    name: str
    most: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What one request takes; `holder` is its own name for its slots."""

    holder: str
    takes: tuple[Take, ...] = ()
    slots: tuple[Slot, ...] = ()


class Shortage(NamedTuple):
    """The limit that refuses a claim, and the seconds after which another try may succeed."""

    limit: LimitName
    wait_s: float


class Ledger(Protocol):
    """The levels of all buckets and the holders of all slots.

    Every method raises `StoreUnavailable` when the state cannot be reached in time.
    """

    async def reserve(self, claim: Claim) -> Shortage | None:
        """Takes all of the claim; or nothing, and says what is short."""
        ...

    async def settle(self, claim: Claim, refunds: tuple[Take, ...]) -> None:
        """Gives `refunds` back (a negative amount takes more) and the claim's slots."""
        ...

    async def renew(self, claims: tuple[Claim, ...]) -> None:
        """Says that the holders of the claims' slots are alive."""
        ...


class Level(NamedTuple):
    """How much a bucket held (at most its size, at least minus its size), and when, in seconds."""

    amount: float
    at: float


def refilled(level: Level | None, size: int, now: float) -> float:
    """What a bucket holds `now`; one that is unknown, or from before the clock began anew, is
    full."""
    if level is None or level.at > now + FULL_AGAIN_S:
        return float(size)
    return min(float(size), level.amount + max(0.0, now - level.at) * size / 60)


def wait_s(take: Take, level: float) -> float:
    """Seconds until the bucket holds what is to be taken; 0 if it does."""
    # More than a bucket ever holds is given when it is full: what it cost is settled later.
    missing = min(take.amount, take.size) - level
    return max(0.0, missing * 60 / take.size)
