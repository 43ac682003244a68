"""Which of an upstream's servers gets the next call: state in, choice out. No IO and no clock.

**Choice.** Among the targets that are in use and have room, the one with the fewest calls in
flight for its weight; among equals, in turn by weight.

**Ejection.** `FAILURES` failures with no good end between them eject a target for 30 s times the
number of its ejections, at most 300 s. Then it is half open: one call at a time may try it, whose
first token brings it back, and whose failure ejects it for longer. The count starts anew after it
has been good for as long as it was out. Where all targets are ejected nothing is gained by
avoiding any, so all are used: the last one is never out. Only an agent that names another
upstream goes there instead.

**Rest.** A target that answered with `Retry-After` gets no call before that time while another
can take it: another target, or the next upstream of an agent that names one.

**Retries.** A turn calls an upstream at most three times. At most 20 % of an upstream's calls in
flight, or three, may be retries; none goes to a target that is failing, so an outage is not made
worse.

Sources: Envoy, "Outlier detection" and "Circuit breaking" (defaults of ejection and of the retry
budget). Times are seconds of one monotonic clock.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

FAILURES: Final = 5
EJECTION_S: Final = 30.0
LONGEST_EJECTION_S: Final = 300.0
RETRY_SHARE: Final = 0.2
FEWEST_RETRIES: Final = 3
MOST_CALLS: Final = 3


@dataclass(slots=True, eq=False)
class Target:
    """One server. `failures` counts those since the last good end.

    It is ejected or half open while `opened_at` is set, and in use without a doubt otherwise.
    """

    name: str
    weight: int
    in_flight: int = 0
    failures: int = 0
    ejections: int = 0
    opened_at: float | None = None
    open_until: float = 0.0
    closed_at: float = 0.0
    rest_until: float = 0.0
    probing: bool = False
    turn: float = 0.0

    @property
    def failing(self) -> bool:
        """Whether it has failed too often to be asked a second time for the same turn."""
        return self.failures >= FAILURES

    def usable(self, now: float) -> bool:
        """Whether a call may go there without need."""
        return self.opened_at is None or (now >= self.open_until and not self.probing)

    def eject(self, now: float) -> None:
        """Takes it out of use, for longer than the last time."""
        if self.opened_at is None and now - self.closed_at >= _length(self.ejections):
            self.ejections = 0
        self.ejections += 1
        self.opened_at = now
        self.open_until = now + _length(self.ejections)

    def bring_back(self, now: float) -> None:
        """Puts it into use again."""
        self.opened_at = None
        self.failures = 0
        self.closed_at = now


@dataclass(slots=True, eq=False)
class Place:
    """One call's place at a target; `probe` is set for the one that tries a half-open target."""

    target: Target
    taken_at: float
    retry: bool = False
    probe: bool = False


class Balancer:
    """The targets of one upstream, of which each takes `max_in_flight` calls at once."""

    def __init__(self, targets: Sequence[Target], *, max_in_flight: int) -> None:
        self.targets = tuple(targets)
        self._max_in_flight = max_in_flight
        self._retries = 0

    @property
    def in_flight(self) -> int:
        """Calls at all targets."""
        return sum(target.in_flight for target in self.targets)

    def none_ready(self, now: float) -> bool:
        """Whether every target is ejected or asked for a rest: none is used without need."""
        return not any(target.usable(now) and target.rest_until <= now for target in self.targets)

    def take(self, now: float, *, tried: Collection[str] = (), retry: bool = False) -> Place | None:
        """A place, at a target that was not `tried` if possible; None if all are full.

        A `retry` is nobody's probe: it goes to a half-open target only if there is no other.
        """
        pool = [target for target in self.targets if target.usable(now)] or [*self.targets]
        if retry:
            pool = [target for target in pool if not target.failing] or pool
        pool = [target for target in pool if target.rest_until <= now] or pool
        pool = [target for target in pool if target.in_flight < self._max_in_flight]
        pool = [target for target in pool if target.name not in tried] or pool
        if not pool:
            return None
        target = _next(pool)
        probe = target.opened_at is not None and target.usable(now)
        target.in_flight += 1
        target.probing = target.probing or probe
        return Place(target, now, retry, probe)

    def next_try(
        self, now: float, *, tried: Collection[str], same: bool, backoff_s: float = 0.0
    ) -> float | None:
        """After how long a turn that has called these may call again; None: not at all.

        A target is called twice only if there is no other, only where `same` allows it, and not
        before `backoff_s`.
        """
        sound = [target for target in self.targets if target.usable(now) and not target.failing]
        fresh = [target for target in sound if target.name not in tried]
        if len(tried) > 1 or not same:
            sound = fresh
        if not sound or len(tried) >= MOST_CALLS:
            return None
        rest_s = min(target.rest_until for target in fresh or sound) - now
        return max(rest_s, 0.0 if fresh else backoff_s)

    def reserve_retry(self) -> bool:
        """Takes a part of the budget, until `return_retry` or the end of a place with `retry`."""
        if self._retries + 1 > max(FEWEST_RETRIES, RETRY_SHARE * (self.in_flight + 1)):
            return False
        self._retries += 1
        return True

    def return_retry(self) -> None:
        """Gives a reserved part of the budget back."""
        self._retries -= 1

    def began(self, place: Place, now: float) -> None:
        """The first token came: an ejected target that does this is good again."""
        target = place.target
        if target.opened_at is not None and place.taken_at >= target.opened_at:
            target.bring_back(now)

    def ended(self, place: Place, now: float, *, failed: bool | None, wait: float | None) -> bool:
        """A call is over: `failed` is None if that says nothing about the target, and false only
        after `began`.

        `wait` is what the target asked for. True if this ejected the target.
        """
        target = place.target
        target.in_flight -= 1
        if place.retry:
            self._retries -= 1
        if place.probe:
            target.probing = False
        if wait is not None:
            target.rest_until = max(target.rest_until, now + wait)
        if failed is None:
            return False
        if not failed:
            if target.opened_at is None:
                target.failures = 0
            return False
        target.failures += 1
        if place.probe or (target.opened_at is None and target.failing):
            target.eject(now)
            return True
        return False


def _length(ejections: int) -> float:
    return min(EJECTION_S * ejections, LONGEST_EJECTION_S)


def _next(pool: Sequence[Target]) -> Target:
    fewest = min(target.in_flight / target.weight for target in pool)
    equal = [target for target in pool if target.in_flight / target.weight == fewest]
    # Smooth weighted round robin: each gets its weight, the chosen one pays for all.
    for target in equal:
        target.turn += target.weight
    chosen = max(equal, key=lambda target: target.turn)
    chosen.turn -= sum(target.weight for target in equal)
    return chosen
