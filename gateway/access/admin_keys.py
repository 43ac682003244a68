"""The keys of those who read a tenant's conversations, apart from the keys of its clients.

A caller's key is compared with every tenant's, by SHA-256 digests and to the last, so the time
says neither which one it came near to nor how near.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import Unauthorized
from gateway.messages import Principal

# No configured key can have this name, so its limits are nobody else's.
_KEY_NAME: Final = "admin-key"


@dataclass(frozen=True, slots=True)
class AdminTenant:
    """A tenant with an admin key, and the agent that its callers would talk to."""

    key: str = field(repr=False)
    agent: str


class AdminKeys:
    """The admin keys of all tenants that have one; implements `Authenticator`."""

    def __init__(self, tenants: Mapping[str, AdminTenant]) -> None:
        self._digests = {name: _digest(tenant.key) for name, tenant in tenants.items()}
        self._agents = {name: tenant.agent for name, tenant in tenants.items()}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def authenticate(self, credential: str, dialect: str, *, now: float) -> Principal:
        """Whose key it is. Raises `Unauthorized`."""
        given = _digest(credential)
        owner = None
        for name, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                owner = name
        if owner is None:
            raise Unauthorized("no such admin key")
        return Principal(owner, _KEY_NAME, self._agents[owner])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
