"""Requests a minute, per tenant and per key.

"N per minute" is a bucket of N that refills by N/60 a second. The buckets live in the process;
there are as many as configured names, so memory is bounded by the configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import RateLimited
from gateway.messages import Principal


@dataclass(slots=True)
class _Bucket:
    size: float
    level: float
    filled_at: float

    def wait_s(self, now: float) -> float:
        """Refills to `now`; the seconds until one request fits, 0 if it does."""
        self.level = min(self.size, self.level + (now - self.filled_at) * self.size / 60)
        self.filled_at = now
        return 0.0 if self.level >= 1 else (1 - self.level) * 60 / self.size


class RequestLimits:
    """Buckets of tenants and of keys; a request takes from both or from neither."""

    def __init__(self, tenants: Mapping[str, int], keys: Mapping[tuple[str, str], int]) -> None:
        self._tenants = {name: _full(size) for name, size in tenants.items()}
        self._keys = {name: _full(size) for name, size in keys.items()}

    def admit(self, principal: Principal, *, now: float) -> None:
        """Takes one request; `now` is monotonic seconds. Raises `RateLimited`."""
        buckets = [
            bucket
            for bucket in (
                self._tenants.get(principal.tenant),
                self._keys.get((principal.tenant, principal.key)),
            )
            if bucket is not None
        ]
        wait_s = max((bucket.wait_s(now) for bucket in buckets), default=0.0)
        if wait_s > 0:
            raise RateLimited("over requests_per_minute", retry_after=wait_s)
        for bucket in buckets:
            bucket.level -= 1


def _full(size: int) -> _Bucket:
    return _Bucket(float(size), float(size), 0.0)
