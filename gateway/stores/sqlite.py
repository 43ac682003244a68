"""Conversations in one SQLite file, shared by the workers of one machine.

A thread writes, with one transaction for all writes that are waiting, and another reads; see
`worker.py` for what a caller may rely on. Conversations that nobody wrote to for
`retention_days` are deleted a few at a time, when the store opens and every hour after.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import apsw

from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.messages import (
    NO_TERMS,
    Conversation,
    ConversationKey,
    ConversationPage,
    ConversationStatus,
    Lease,
    Leased,
    Message,
    MessagePage,
    Once,
    Recorded,
    Terms,
)
from gateway.stores import sqlite_turns as turns
from gateway.stores import statements
from gateway.stores.desks import Reader, Writer
from gateway.stores.leasing import LEASE_S
from gateway.stores.public_id import new_public_id
from gateway.stores.worker import Worker

T = TypeVar("T")

_PENDING: Final = 1024
_WRITES_TOGETHER: Final = 128
_READS_TOGETHER: Final = 16
# A thread gets the interpreter only once another has kept it for this long at a stretch. A loop
# that is never idle looks at its sockets every few milliseconds: with Python's 5 ms the threads
# of the store would wait for seconds.
_SWITCH_S: Final = 0.0001


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
        lease_s: float = LEASE_S,
    ) -> None:
        self.lease_s = lease_s
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

    async def load(self, key: ConversationKey, *, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages. Raises `NotFound`."""
        return _known(await self._read(partial(statements.load, key, messages, self._oldest())))

    async def create(
        self,
        key: ConversationKey,
        *,
        owner: str | None,
        subject: str | None,
        terms: Terms = NO_TERMS,
    ) -> Conversation:
        """A new conversation. Raises `Conflict` if the key is taken."""
        new = self._new(key, owner=owner, subject=subject, terms=terms)
        if not await self.write(partial(statements.create, new, self._oldest())):
            raise Conflict("the conversation exists")
        return new

    async def restore(self, conversation: Conversation) -> None:
        """Adds a whole conversation. Raises `Conflict` if its key or public id is taken."""
        if not await self.write(partial(statements.restore, conversation, self._oldest())):
            raise Conflict("the conversation exists")

    async def begin(
        self,
        key: ConversationKey,
        *,
        identity: str | None,
        create: bool,
        messages: int,
        once: Once | None = None,
    ) -> Leased | Recorded:
        """Lock and `load` in one transaction; see `ports.ConversationStore`."""
        new = self._new(key, owner=identity, subject=None, terms=NO_TERMS)
        opening = turns.Opening(new, create, messages, once, self._oldest(), self.lease_s)
        return await self.write(partial(turns.begin, opening), hurried=True)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Lets the leases live for another `lease_s`."""
        await self.write(partial(turns.renew, tuple(leases), self.lease_s))

    async def commit(
        self, lease: Lease, messages: Sequence[Message], *, record: bytes | None = None
    ) -> None:
        """Adds the messages and ends the lease; see `ports.ConversationStore`."""
        await self.write(
            partial(turns.commit, lease, tuple(messages), record, self._clock(), self._oldest())
        )

    async def release(self, lease: Lease) -> None:
        """The end of the lease without a message."""
        await self.write(partial(turns.release, lease))

    async def update(
        self,
        key: ConversationKey,
        *,
        subject: str | None = None,
        status: ConversationStatus | None = None,
    ) -> Conversation:
        """The conversation after the change. Raises `NotFound`."""
        return await self.write(partial(statements.update, key, subject, status, self._oldest()))

    async def mark_read(self, key: ConversationKey, count: int) -> None:
        """Notes that the first `count` messages were read. Raises `NotFound`."""
        await self.write(partial(statements.mark_read, key, count, self._oldest()))

    async def delete(self, key: ConversationKey) -> None:
        """Forgets the conversation and its messages. Raises `NotFound`."""
        await self.write(partial(statements.delete, key, self._oldest()))

    async def recent(
        self,
        tenant: str,
        dialect: str,
        *,
        owner: str | None,
        limit: int,
        cursor: str | None = None,
        messages: int = 0,
    ) -> ConversationPage:
        """That owner's conversations, last written to first. Raises `BadRequest`."""
        oldest = self._oldest()
        return await self._read(
            partial(statements.recent, tenant, dialect, owner, cursor, limit, messages, oldest)
        )

    async def count(
        self, tenant: str, dialect: str, *, owner: str | None, unread: bool = False
    ) -> int:
        """How many conversations `recent` would give in all, or the unread ones of them."""
        oldest = self._oldest()
        return await self._read(partial(statements.count, tenant, dialect, owner, unread, oldest))

    async def find(
        self, tenant: str, dialect: str, public_id: str, *, messages: int
    ) -> Conversation:
        """As `load`, by the public id. Raises `NotFound`."""
        oldest = self._oldest()
        return _known(
            await self._read(partial(statements.find, tenant, dialect, public_id, messages, oldest))
        )

    async def history(self, key: ConversationKey, *, limit: int, after: int = 0) -> MessagePage:
        """The messages from the oldest on, `limit` at a time. Raises `NotFound`."""
        return await self._read(partial(statements.history, key, limit, after, self._oldest()))

    async def scan(self, *, limit: int, cursor: str | None = None) -> ConversationPage:
        """Every conversation, those written to longest ago first. Raises `BadRequest`."""
        return await self._read(partial(statements.scan, cursor, limit, self._oldest()))

    def _new(
        self, key: ConversationKey, *, owner: str | None, subject: str | None, terms: Terms
    ) -> Conversation:
        now = self._clock()
        return Conversation(
            key, self._new_id(), owner, now, subject=subject, updated_at=now, terms=terms
        )

    def _oldest(self) -> float:
        """The first moment at which what is kept may have been written to last."""
        return -inf if self._keep_s is None else self._clock() - self._keep_s

    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        return await _use(self._reader).call(work)

    async def write(self, work: Callable[[apsw.Connection], T], *, hurried: bool = False) -> T:
        """Runs `work` in the writer's transaction; what it returns, once that is committed."""
        return await _use(self._writer).call(work, hurried=hurried)


def _known(found: Conversation | None) -> Conversation:
    if found is None:
        raise NotFound("unknown conversation")
    return found


def _use(worker: Worker | None) -> Worker:
    if worker is None:
        raise StoreUnavailable("the store is not open")
    return worker
