"""The recorded replies of the store in memory, by the digest of their `Idempotency-Key`.

Bounds: ten minutes each, `RECORDS_PER_TENANT` for a tenant and `max_bytes` over all; beyond a
bound the oldest are forgotten.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.errors import ConversationBusy, KeyReused
from gateway.messages import Lease, Once
from gateway.stores.leasing import RECORD_BYTES, RECORD_S, RECORDS_PER_TENANT

_MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True)
class _Slot:
    body: str
    lease: Lease
    expires_at: float
    done: bool = False
    record: bytes | None = None


class RecordShelf:
    """`clock` gives seconds since the epoch."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        per_tenant: int = RECORDS_PER_TENANT,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._clock = clock
        self._per_tenant = per_tenant
        self._max_bytes = max_bytes
        self._bytes = 0
        self._tenants: dict[str, OrderedDict[str, _Slot]] = {}
        self._tenant_of: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tenant_of)

    def clear(self) -> None:
        """Forgets everything."""
        self._tenants.clear()
        self._tenant_of.clear()
        self._bytes = 0

    def find(
        self, once: Once, *, running: Callable[[Lease], bool], known: Callable[[Lease], bool]
    ) -> bytes | None:
        """The recorded reply, None if there is none. Raises `KeyReused` and `ConversationBusy`.

        A turn's reservation counts while it is `running`, its reply while its conversation is
        `known`.
        """
        self._expire()
        tenant = self._tenant_of.get(once.scope)
        if tenant is None:
            return None
        slot = self._tenants[tenant][once.scope]
        if slot.expires_at <= self._clock() or not (known if slot.done else running)(slot.lease):
            self._forget(once.scope)
            return None
        if slot.body != once.body:
            raise KeyReused("the key came with another request before")
        if not slot.done:
            raise ConversationBusy("the first request with this key is running")
        if slot.record is None:
            raise KeyReused("the first reply was too long to be recorded")
        return slot.record

    def reserve(self, once: Once, lease: Lease) -> None:
        """Notes that the first request with the key is running."""
        self._forget(once.scope)
        tenant = lease.key.tenant
        slots = self._tenants.setdefault(tenant, OrderedDict())
        slots[once.scope] = _Slot(once.body, lease, self._clock() + RECORD_S)
        self._tenant_of[once.scope] = tenant
        if len(slots) > self._per_tenant:
            self._forget(next(iter(slots)))

    def keep(self, lease: Lease, record: bytes | None) -> None:
        """Notes what the first request was answered."""
        slot = self._slot(lease)
        if slot is None:
            return
        slot.done = True
        slot.expires_at = self._clock() + RECORD_S
        if record is not None and len(record) <= RECORD_BYTES:
            slot.record = record
            self._bytes += len(record)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._tenant_of)))

    def give_up(self, lease: Lease) -> None:
        """Forgets a first request that left nothing."""
        slot = self._slot(lease)
        if slot is not None and not slot.done and lease.once is not None:
            self._forget(lease.once.scope)

    def _slot(self, lease: Lease) -> _Slot | None:
        if lease.once is None:
            return None
        slot = self._tenants.get(lease.key.tenant, OrderedDict()).get(lease.once.scope)
        return slot if slot is not None and slot.lease == lease else None

    def _expire(self) -> None:
        now = self._clock()
        while self._tenant_of:
            scope, tenant = next(iter(self._tenant_of.items()))
            if self._tenants[tenant][scope].expires_at > now:
                return
            self._forget(scope)

    def _forget(self, scope: str) -> None:
        tenant = self._tenant_of.pop(scope, None)
        if tenant is None:
            return
        slots = self._tenants[tenant]
        slot = slots.pop(scope)
        self._bytes -= len(slot.record or b"")
        if not slots:
            del self._tenants[tenant]
