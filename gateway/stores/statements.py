"""What the SQLite store says to its file, one function per job; each runs in a desk's thread.

`oldest` is the first moment (seconds since the epoch) at which a conversation may have been
written to last: what is older has expired and is not there, whether it was swept yet or not.
"""

# ruff: noqa: S608 - the statements are put together from constants of this module

from collections.abc import Sequence
from typing import Any, Final

import apsw

from gateway.errors import NotFound
from gateway.messages import (
    Conversation,
    ConversationKey,
    ConversationPage,
    ConversationStatus,
    Message,
    MessagePage,
)
from gateway.stores.connection import rows
from gateway.stores.forms import (
    decode_calls,
    decode_cursor,
    decode_terms,
    encode_calls,
    encode_cursor,
    encode_terms,
)
from gateway.stores.leasing import first_token

_ABOUT: Final = (
    "c.number, c.tenant, c.dialect, c.id, c.public_id, c.owner, c.created_at, c.subject, "
    "c.updated_at, c.length, c.read_length, c.status, c.terms"
)
_MESSAGE: Final = "m.id, m.role, m.text, m.created_at, m.status, m.calls"
_WIDTH: Final = _ABOUT.count(",") + 1
_ENDLESS: Final = float("inf")
_LAST: Final = 2**63 - 1

LOAD: Final = f"""
SELECT {_ABOUT}, {_MESSAGE}
FROM conversations AS c
LEFT JOIN messages AS m ON m.conversation = c.number AND m.seq > c.length - ?
WHERE c.tenant = ? AND c.dialect = ? AND c.id = ? AND c.updated_at >= ?
ORDER BY m.seq
"""
_FIND: Final = f"""
SELECT {_ABOUT}, {_MESSAGE}
FROM conversations AS c
LEFT JOIN messages AS m ON m.conversation = c.number AND m.seq > c.length - ?
WHERE c.public_id = ? AND c.tenant = ? AND c.dialect = ? AND c.updated_at >= ?
ORDER BY m.seq
"""
RECENT: Final = f"""
SELECT {_ABOUT}, {_MESSAGE}
FROM (
    SELECT * FROM conversations
    WHERE tenant = ? AND dialect = ? AND owner IS ? AND updated_at >= ?
        AND (updated_at, number) < (?, ?)
    ORDER BY updated_at DESC, number DESC
    LIMIT ?
) AS c
LEFT JOIN messages AS m ON m.conversation = c.number AND m.seq > c.length - ?
ORDER BY c.updated_at DESC, c.number DESC, m.seq
"""
SCAN: Final = f"""
SELECT {_ABOUT} FROM conversations AS c
WHERE updated_at >= ? AND (updated_at, number) > (?, ?)
ORDER BY updated_at, number
LIMIT ?
"""
COUNT: Final = """
SELECT count(*) FROM conversations
WHERE tenant = ? AND dialect = ? AND owner IS ? AND updated_at >= ?
"""
_COUNT_UNREAD: Final = f"{COUNT} AND length > read_length"
_HISTORY: Final = f"""
SELECT {_MESSAGE}, m.seq
FROM conversations AS c
LEFT JOIN messages AS m ON m.conversation = c.number AND m.seq > ?
WHERE c.tenant = ? AND c.dialect = ? AND c.id = ? AND c.updated_at >= ?
ORDER BY m.seq
LIMIT ?
"""
_FORGET: Final = """
DELETE FROM conversations WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at < ?
"""
_CREATE: Final = """
INSERT INTO conversations
    (tenant, dialect, id, public_id, owner, subject, created_at, updated_at, terms, turn)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, dialect, id) DO NOTHING
"""
_ADD: Final = """
INSERT INTO messages (conversation, seq, id, role, text, created_at, status, calls)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_RESTORED: Final = """
UPDATE conversations SET length = ?, read_length = ?, status = ?
WHERE tenant = ? AND dialect = ? AND id = ?
RETURNING number
"""
_CHANGE: Final = """
UPDATE conversations
SET subject = coalesce(?, subject), status = iif(status = 'open', coalesce(?, status), status)
WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at >= ?
"""
_READ: Final = """
UPDATE conversations SET read_length = max(read_length, min(?, length))
WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at >= ?
"""
_DELETE: Final = """
DELETE FROM conversations WHERE tenant = ? AND dialect = ? AND id = ? AND updated_at >= ?
"""


def load(
    key: ConversationKey, messages: int, oldest: float, connection: apsw.Connection
) -> Conversation | None:
    """The conversation with its newest messages."""
    return _whole(rows(connection, LOAD, (messages, *key, oldest)))


def find(
    tenant: str,
    dialect: str,
    public_id: str,
    messages: int,
    oldest: float,
    connection: apsw.Connection,
) -> Conversation | None:
    """The same by the public id."""
    return _whole(rows(connection, _FIND, (messages, public_id, tenant, dialect, oldest)))


def recent(
    tenant: str,
    dialect: str,
    owner: str | None,
    cursor: str | None,
    limit: int,
    messages: int,
    oldest: float,
    connection: apsw.Connection,
) -> ConversationPage:
    """A page, last written to first. Raises `BadRequest` for a bad cursor."""
    place = (_ENDLESS, _LAST) if cursor is None else decode_cursor(cursor)
    found = rows(
        connection, RECENT, (tenant, dialect, owner, oldest, *place, limit + 1, max(messages, 0))
    )
    by_number: dict[int, list[tuple[Any, ...]]] = {}
    for row in found:
        by_number.setdefault(row[0], []).append(row)
    return _page([(number, _about(group)) for number, group in by_number.items()], limit)


def scan(
    cursor: str | None, limit: int, oldest: float, connection: apsw.Connection
) -> ConversationPage:
    """A page of everything, written to longest ago first: who is written to meanwhile moves
    behind the cursor and comes again. Raises `BadRequest` for a bad cursor."""
    place = (-_ENDLESS, 0) if cursor is None else decode_cursor(cursor)
    found = rows(connection, SCAN, (oldest, *place, limit + 1))
    return _page([(row[0], _about([row])) for row in found], limit)


def count(
    tenant: str,
    dialect: str,
    owner: str | None,
    unread: bool,
    oldest: float,
    connection: apsw.Connection,
) -> int:
    """How many there are."""
    statement = _COUNT_UNREAD if unread else COUNT
    ((number,),) = rows(connection, statement, (tenant, dialect, owner, oldest))
    return int(number)


def history(
    key: ConversationKey, limit: int, after: int, oldest: float, connection: apsw.Connection
) -> MessagePage:
    """A page of messages, oldest first. Raises `NotFound`."""
    found = rows(connection, _HISTORY, (after, *key, oldest, limit + 1))
    if not found:
        raise NotFound("unknown conversation")
    said = [row for row in found[:limit] if row[0] is not None]
    more = said[-1][-1] if len(found) > limit else None
    return MessagePage(tuple(_message(row[:-1]) for row in said), more)


def create(new: Conversation, oldest: float, connection: apsw.Connection) -> bool:
    """Whether the key was free; an expired conversation makes way."""
    connection.execute(_FORGET, (*new.key, oldest))
    row = (
        *new.key,
        new.public_id,
        new.owner,
        new.subject,
        new.created_at,
        new.updated_at,
        encode_terms(new.terms),
        first_token(),
    )
    connection.execute(_CREATE, row)
    return connection.changes() == 1


def restore(conversation: Conversation, oldest: float, connection: apsw.Connection) -> bool:
    """Whether key and public id were free."""
    try:
        if not create(conversation, oldest, connection):
            return False
    except apsw.ConstraintError:  # the public id
        return False
    length = len(conversation.messages)
    values = (length, conversation.read, conversation.status, *conversation.key)
    ((number,),) = rows(connection, _RESTORED, values)
    add_messages(number, 1, conversation.messages, connection)
    return True


def add_messages(
    number: int, first: int, messages: Sequence[Message], connection: apsw.Connection
) -> None:
    """Adds the messages to conversation `number`, from place `first` on."""
    connection.executemany(
        _ADD,
        (
            (
                number,
                first + place,
                entry.id,
                entry.role,
                entry.text,
                entry.created_at,
                entry.status,
                encode_calls(entry.calls),
            )
            for place, entry in enumerate(messages)
        ),
    )


def update(
    key: ConversationKey,
    subject: str | None,
    status: ConversationStatus | None,
    oldest: float,
    connection: apsw.Connection,
) -> Conversation:
    """The conversation after the change. Raises `NotFound`."""
    connection.execute(_CHANGE, (subject, status, *key, oldest))
    changed = load(key, 0, oldest, connection)
    if changed is None:
        raise NotFound("unknown conversation")
    return changed


def mark_read(
    key: ConversationKey, number: int, oldest: float, connection: apsw.Connection
) -> None:
    """Moves the mark forward. Raises `NotFound`."""
    _affect(connection, _READ, (number, *key, oldest))


def delete(key: ConversationKey, oldest: float, connection: apsw.Connection) -> None:
    """Deletes the conversation and its messages. Raises `NotFound`."""
    _affect(connection, _DELETE, (*key, oldest))


def _affect(
    connection: apsw.Connection, statement: str, values: tuple[str | float | None, ...]
) -> None:
    connection.execute(statement, values)
    if connection.changes() == 0:
        raise NotFound("unknown conversation")


def _whole(found: list[tuple[Any, ...]]) -> Conversation | None:
    return _about(found) if found else None


def _about(group: list[tuple[Any, ...]]) -> Conversation:
    """The conversation of rows that have it before one of its messages each, or before none."""
    _, tenant, dialect, id_, public_id, owner, created_at, subject, updated_at, length, read = (
        group[0][:11]
    )
    status, terms = group[0][11:_WIDTH]
    # A conversation without messages is one row with nothing in the message's columns.
    said = (row[_WIDTH:] for row in group)
    return Conversation(
        ConversationKey(tenant, dialect, id_),
        public_id,
        owner,
        created_at,
        tuple(_message(columns) for columns in said if columns and columns[0] is not None),
        subject,
        updated_at,
        length,
        read,
        status,
        decode_terms(terms),
    )


def _message(row: tuple[Any, ...]) -> Message:
    id_, role, text, created_at, status, calls = row
    return Message(id_, role, text, created_at, status, decode_calls(calls))


def _page(found: list[tuple[int, Conversation]], limit: int) -> ConversationPage:
    """The first `limit` of what was found, and where the next page begins if more was."""
    cursor = None
    if len(found) > limit:
        number, last = found[limit - 1]
        cursor = encode_cursor(last.updated_at, number)
    return ConversationPage(tuple(entry for _, entry in found[:limit]), cursor)
