"""API keys: how they are made, kept and recognised.

A key is `cgw_<dialect>_` and 43 characters of base64url: 256 random bits. What is kept is
`sha256:<hex>` of its text; a fast hash is enough for a secret that cannot be guessed. A caller is
looked up by the hash of what it sent, so the time says nothing about any stored key.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.errors import Forbidden, Unauthorized
from gateway.messages import DialectName, Principal

PREFIXES: Final[Mapping[DialectName, str]] = {
    "hyponema": "cgw_hn_",
    "hyperleap": "cgw_hl_",
    "widget": "cgw_w_",
}
"""What the keys of each dialect that takes keys begin with."""

_RANDOM_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A configured key. `expires` is the first moment (epoch seconds) at which it no longer
    works; `agent` serves instead of the tenant's."""

    tenant: str
    name: str
    hash: str = field(repr=False)
    dialects: frozenset[str]
    expires: float | None = None
    agent: str | None = None


class KeyRing:
    """Every key of every tenant; implements `Authenticator`.

    Raises `ValueError` if two records have one hash: the key could not tell its tenant.
    """

    def __init__(self, records: Iterable[KeyRecord], agents_by_tenant: Mapping[str, str]) -> None:
        self._by_hash: dict[str, KeyRecord] = {}
        for record in records:
            first = self._by_hash.setdefault(record.hash, record)
            if first is not record:
                raise ValueError(
                    f"keys {first.tenant}/{first.name} and {record.tenant}/{record.name} are one"
                )
        self._agents = dict(agents_by_tenant)

    def authenticate(self, credential: str, dialect: str, *, now: float) -> Principal:
        """Who the key belongs to; `now` in epoch seconds.

        Raises `Unauthorized` for a key that is unknown, expired or malformed (the client is not
        told which), and `Forbidden` for a good key on a dialect that it is not for.
        """
        record = self._by_hash.get(hash_key(credential))
        if record is None:
            raise Unauthorized("no such key")
        if record.expires is not None and now >= record.expires:
            raise Unauthorized(f"key {record.tenant}/{record.name} has expired")
        if dialect not in record.dialects:
            raise Forbidden(f"key {record.tenant}/{record.name} is not for {dialect}")
        agent = self._agents[record.tenant] if record.agent is None else record.agent
        return Principal(record.tenant, record.name, agent)


def hash_key(text: str) -> str:
    """`sha256:<hex>` of a key's text; any text has one."""
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def new_key(dialect: DialectName) -> str:
    """A fresh key for one of the dialects that take keys. Raises `KeyError` for another."""
    return f"{PREFIXES[dialect]}{secrets.token_urlsafe(_RANDOM_BYTES)}"
