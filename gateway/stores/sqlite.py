"""Conversations in one SQLite file, shared by the workers of one machine.

A thread writes, with one transaction for all writes that are waiting, and another reads; see
`worker.py` for what a caller may rely on. Conversations that nobody wrote to for
`retention_days` are deleted a few at a time, when the store opens and every hour after.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import apsw

from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.messages import Conversation, ConversationKey, Message
from gateway.stores.connection import rows
from gateway.stores.desks import Reader, Writer
from gateway.stores.public_id import new_public_id
from gateway.stores.worker import Worker

_PENDING: Final = 1024
_WRITES_TOGETHER: Final = 128
_READS_TOGETHER: Final = 16
# A thread gets the interpreter only once another has kept it for this long at a stretch. A loop
# that is never idle looks at its sockets every few milliseconds: with Python's 5 ms the threads
# of the store would wait for seconds.
_SWITCH_S: Final = 0.0001

_LOAD: Final = """
SELECT c.public_id, c.owner, c.subject, c.created_at,
       m.id, m.role, m.text, m.created_at, m.status
FROM conversations AS c
LEFT JOIN messages AS m ON m.conversation = c.number AND m.seq > c.length - ?
WHERE c.tenant = ? AND c.dialect = ? AND c.id = ?
ORDER BY m.seq
"""
_CREATE: Final = """
INSERT INTO conversations (tenant, dialect, id, public_id, owner, subject, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, dialect, id) DO NOTHING
"""
_GROW: Final = """
UPDATE conversations SET updated_at = ?, length = length + ?
WHERE tenant = ? AND dialect = ? AND id = ?
RETURNING number, length
"""
_ADD: Final = """
INSERT INTO messages (conversation, seq, id, role, text, created_at, status)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class SqliteStore:
    """A `ConversationStore` in the file at `path`.

    `clock` gives seconds since the epoch, `new_id` public ids; `retention_days` None keeps
    conversations for ever.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        retention_days: int | None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = new_public_id,
    ) -> None:
        self._path = Path(path).absolute()
        self._keep_s = None if retention_days is None else retention_days * 86_400.0
        self._clock = clock
        self._new_id = new_id
        self._writer: Worker | None = None
        self._reader: Worker | None = None

    async def open(self) -> None:
        """Makes or upgrades the file and starts the threads.

        Raises `StoreUnavailable` for a file that cannot be used, and leaves it as it was.
        """
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
        writer = Worker(
            "store-writer",
            Writer(self._path, keep_s=self._keep_s, clock=self._clock),
            pending=_PENDING,
            together=_WRITES_TOGETHER,
        )
        reader = Worker(
            "store-reader", Reader(self._path), pending=_PENDING, together=_READS_TOGETHER
        )
        await writer.start()
        self._writer = writer
        try:
            await reader.start()
        except BaseException:
            await self.close()
            raise
        self._reader = reader

    async def close(self) -> None:
        """Writes what is pending, moves the log into the file and ends the threads."""
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        # The reader first: the last connection to leave takes the log with it.
        if reader is not None:
            await reader.stop()
        if writer is not None:
            await writer.stop()

    async def load(self, key: ConversationKey, *, create: bool, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages; one that exists costs no write.

        With `create` an unknown one is made, else `NotFound` is raised.
        """
        found = await _use(self._reader).call(partial(_load, key, messages))
        if found is not None:
            return found
        if not create:
            raise NotFound("unknown conversation")
        new = Conversation(key, self._new_id(), None, self._clock())
        return await _use(self._writer).call(partial(_load_or_create, new, messages))

    async def create(
        self, key: ConversationKey, *, owner: str | None, subject: str | None
    ) -> Conversation:
        """A new conversation. Raises `Conflict` if the key is taken."""
        new = Conversation(key, self._new_id(), owner, self._clock(), subject=subject)
        if not await _use(self._writer).call(partial(_create, new)):
            raise Conflict("the conversation exists")
        return new

    async def append(self, key: ConversationKey, messages: Sequence[Message]) -> None:
        """Adds the messages in order, all or none. Raises `NotFound` for an unknown key."""
        await _use(self._writer).call(partial(_append, key, tuple(messages), self._clock()))


def _use(worker: Worker | None) -> Worker:
    if worker is None:
        raise StoreUnavailable("the store is not open")
    return worker


def _load(key: ConversationKey, messages: int, connection: apsw.Connection) -> Conversation | None:
    found = rows(connection, _LOAD, (messages, *key))
    if not found:
        return None
    public_id, owner, subject, created_at = found[0][:4]
    # A conversation without messages is one row with nothing in the message's columns.
    history = tuple(Message(*row[4:]) for row in found if row[4] is not None)
    return Conversation(key, public_id, owner, created_at, history, subject)


def _create(new: Conversation, connection: apsw.Connection) -> bool:
    """Whether the key was free."""
    row = (*new.key, new.public_id, new.owner, new.subject, new.created_at, new.created_at)
    connection.execute(_CREATE, row)
    return connection.changes() == 1


def _load_or_create(new: Conversation, messages: int, connection: apsw.Connection) -> Conversation:
    _create(new, connection)
    return _load(new.key, messages, connection) or new


def _append(
    key: ConversationKey,
    messages: tuple[Message, ...],
    now: float,
    connection: apsw.Connection,
) -> None:
    grown = rows(connection, _GROW, (now, len(messages), *key))
    if not grown:
        raise NotFound("unknown conversation")
    number, length = grown[0]
    first = length - len(messages) + 1
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
            )
            for place, entry in enumerate(messages)
        ),
    )
