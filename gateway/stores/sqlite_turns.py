"""A turn's steps on the SQLite file, each run by the writing thread inside its transaction.

A lease is two numbers in the conversation's row, so taking it changes one page. Its clock is the
machine's monotonic one, which all processes of a machine share and nobody can set. It starts
anew when the machine does: an end that is further away than a lease is long is from before.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import apsw

from gateway.errors import Conflict, ConversationBusy, KeyReused, NotFound, NotOwner
from gateway.messages import (
    Conversation,
    Lease,
    Leased,
    Message,
    Once,
    Recorded,
)
from gateway.stores.connection import rows
from gateway.stores.leasing import (
    RECORD_BYTES,
    RECORD_S,
    RECORDS_PER_TENANT,
    new_nonce,
)
from gateway.stores.statements import add_messages, create, load

_LEASE: Final = """
UPDATE conversations SET turn = turn + 1, leased_until = ?
WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at >= ?
  AND owner IS ? AND NOT leased_until BETWEEN ? AND ?
RETURNING number, turn
"""
_OWNER: Final = """
SELECT owner FROM conversations WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at >= ?
"""
_RENEW: Final = """
UPDATE conversations SET leased_until = ?
WHERE tenant = ? AND dialect = ? AND id = ? AND turn = ? AND leased_until > 0
"""
_COMMIT: Final = """
UPDATE conversations SET updated_at = ?, length = length + ?, leased_until = 0, committed = turn
WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at >= ? AND turn = ? AND committed <> turn
RETURNING number, length
"""
_COMMITTED: Final = """
SELECT committed FROM conversations
WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at >= ?
"""
_RELEASE: Final = """
UPDATE conversations SET leased_until = 0
WHERE tenant = ? AND dialect = ? AND id = ? AND turn = ? AND leased_until > 0
"""

_REPLY: Final = """
SELECT r.body, r.done, r.record,
       c.turn = r.turn AND c.leased_until BETWEEN ? AND ?, r.expires_at > ?
FROM replies AS r JOIN conversations AS c ON c.number = r.conversation
WHERE r.scope = ?
"""
_RESERVE: Final = """
INSERT INTO replies (tenant, scope, body, conversation, turn, expires_at)
VALUES (?, ?, ?, ?, ?, ?)
"""
_KEEP: Final = """
UPDATE replies SET done = 1, record = ?, expires_at = ? WHERE scope = ? AND turn = ?
"""
_FORGET: Final = "DELETE FROM replies WHERE scope = ?"
_GIVE_UP: Final = "DELETE FROM replies WHERE scope = ? AND turn = ? AND done = 0"
_EXPIRE: Final = """
DELETE FROM replies WHERE number IN
    (SELECT number FROM replies WHERE expires_at <= ? ORDER BY expires_at LIMIT 20)
"""
_OVERFLOW: Final = """
DELETE FROM replies WHERE tenant = ?1 AND number <=
    (SELECT number FROM replies WHERE tenant = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)
"""


@dataclass(frozen=True, slots=True)
class Opening:
    """What `begin` was asked for. `new` is the conversation as it would be made now; one that was
    last written to before `oldest` has expired."""

    new: Conversation
    create: bool
    messages: int
    once: Once | None
    oldest: float
    lease_s: float


def begin(opening: Opening, connection: apsw.Connection) -> Leased | Recorded:
    """`ports.ConversationStore.begin`."""
    once = opening.once
    if once is not None:
        record = _recorded(opening, once, connection)
        if record is not None:
            return Recorded(_loaded(opening, connection), record)
    number, token = _take(opening, connection)
    if once is not None:
        _reserve(opening, once, number, token, connection)
    lease = Lease(opening.new.key, token, new_nonce(), once)
    return Leased(_loaded(opening, connection), lease)


def renew(leases: Sequence[Lease], lease_s: float, connection: apsw.Connection) -> None:
    """`ports.ConversationStore.renew`."""
    until = time.monotonic() + lease_s
    connection.executemany(_RENEW, [(until, *lease.key, lease.token) for lease in leases])


def commit(
    lease: Lease,
    messages: Sequence[Message],
    record: bytes | None,
    now: float,
    oldest: float,
    connection: apsw.Connection,
) -> None:
    """`ports.ConversationStore.commit`."""
    grown = rows(connection, _COMMIT, (now, len(messages), *lease.key, oldest, lease.token))
    if not grown:
        found = rows(connection, _COMMITTED, (*lease.key, oldest))
        if not found:
            raise NotFound("the conversation is gone")
        if found[0][0] == lease.token:
            return
        raise Conflict("another turn has taken the conversation over")
    number, length = grown[0]
    add_messages(number, length - len(messages) + 1, messages, connection)
    if lease.once is not None:
        if record is not None and len(record) > RECORD_BYTES:
            record = None
        values = (record, now + RECORD_S, lease.once.scope, lease.token)
        connection.execute(_KEEP, values)


def release(lease: Lease, connection: apsw.Connection) -> None:
    """`ports.ConversationStore.release`."""
    connection.execute(_RELEASE, (*lease.key, lease.token))
    if lease.once is not None:
        connection.execute(_GIVE_UP, (lease.once.scope, lease.token))


def _loaded(opening: Opening, connection: apsw.Connection) -> Conversation:
    found = load(opening.new.key, opening.messages, opening.oldest, connection)
    if found is None:
        raise NotFound("the conversation is gone")
    return found


def _take(opening: Opening, connection: apsw.Connection) -> tuple[int, int]:
    """The conversation's number and the lease's token."""
    now = time.monotonic()
    until = now + opening.lease_s
    new = opening.new
    values = (until, *new.key, opening.oldest, new.owner, now, until)
    taken = rows(connection, _LEASE, values)
    if not taken:
        _make(opening, connection)
        taken = rows(connection, _LEASE, values)
    number, token = taken[0]
    return number, token


def _make(opening: Opening, connection: apsw.Connection) -> None:
    """Makes the conversation, if that is all that is missing, else raises why it is not free."""
    new = opening.new
    found = rows(connection, _OWNER, (*new.key, opening.oldest))
    if found:
        if found[0][0] != new.owner:
            raise NotOwner("the conversation has another owner")
        raise ConversationBusy("a turn is running on this conversation")
    if not opening.create:
        raise NotFound("unknown conversation")
    create(new, opening.oldest, connection)


def _recorded(opening: Opening, once: Once, connection: apsw.Connection) -> bytes | None:
    wall = opening.new.created_at
    connection.execute(_EXPIRE, (wall,))
    now = time.monotonic()
    values = (now, now + opening.lease_s, wall, once.scope)
    found = rows(connection, _REPLY, values)
    if not found:
        return None
    body, done, record, running, fresh = found[0]
    if not (fresh if done else running):
        connection.execute(_FORGET, (once.scope,))
        return None
    if body != once.body:
        raise KeyReused("the key came with another request before")
    if not done:
        raise ConversationBusy("the first request with this key is running")
    if record is None:
        raise KeyReused("the first reply was too long to be recorded")
    return bytes(record)


def _reserve(
    opening: Opening, once: Once, number: int, token: int, connection: apsw.Connection
) -> None:
    tenant = opening.new.key.tenant
    until = opening.new.created_at + RECORD_S
    values = (tenant, once.scope, once.body, number, token, until)
    connection.execute(_RESERVE, values)
    connection.execute(_OVERFLOW, (tenant, RECORDS_PER_TENANT))
