"""What the leases and recorded replies of all stores have in common."""

import secrets
from typing import Final

# A dead worker's conversations are free after this long; a live one renews three times as often.
LEASE_S: Final = 6.0

# For how long a reply is repeated to its `Idempotency-Key`, how many are kept for a tenant (the
# oldest go first), and how long one may be: a longer one is answered as a conflict.
RECORD_S: Final = 600.0
RECORDS_PER_TENANT: Final = 10_000
RECORD_BYTES: Final = 262_144


def new_nonce() -> str:
    """What tells a lease's holder from any other: 64 random bits."""
    return secrets.token_hex(8)


def first_token() -> int:
    """Where a new conversation's tokens start: 48 random bits.

    A conversation that was deleted and made anew must not repeat a token of its former life.
    """
    return secrets.randbits(48)
