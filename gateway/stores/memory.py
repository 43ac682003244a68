"""Conversations in this process's memory: gone when it ends, seen by no other worker.

Bounded by `max_conversations` and by `max_characters` of message text over all of them; beyond
either, the conversation that was written to longest ago is forgotten whole, and of a single one
that is too long its oldest messages. A conversation that nobody wrote to for `retention_days`
is forgotten too.
"""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from gateway.errors import Conflict, NotFound
from gateway.messages import (
    NO_TERMS,
    Conversation,
    ConversationKey,
    ConversationPage,
    ConversationStatus,
    Message,
    MessagePage,
    Terms,
)
from gateway.stores.forms import decode_cursor, encode_cursor
from gateway.stores.public_id import new_public_id


@dataclass(slots=True)
class _Entry:
    """`about` has no messages; `stamp` is higher than that of every entry written to before."""

    about: Conversation
    stamp: int
    messages: list[Message] = field(default_factory=list)
    characters: int = 0

    def newest(self, messages: int) -> Conversation:
        kept = self.messages[-messages:] if messages > 0 else ()
        return replace(self.about, messages=tuple(kept))


class MemoryStore:
    """A `ConversationStore` for one worker; no method waits, so each is one atomic step.

    `clock` gives seconds since the epoch, `new_id` public ids; `retention_days` None keeps
    conversations until a bound is reached.
    """

    def __init__(
        self,
        *,
        retention_days: int | None = None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = new_public_id,
        max_conversations: int = 10_000,
        max_characters: int = 64 * 1024 * 1024,
    ) -> None:
        self._keep_s = None if retention_days is None else retention_days * 86_400.0
        self._clock = clock
        self._new_id = new_id
        self._max_conversations = max_conversations
        self._max_characters = max_characters
        # Written to longest ago first: the order in which conversations expire and are evicted.
        self._entries: OrderedDict[ConversationKey, _Entry] = OrderedDict()
        self._characters = 0
        self._stamps = itertools.count()

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._characters = 0

    async def load(self, key: ConversationKey, *, create: bool, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages, oldest first."""
        self._expire()
        if key not in self._entries and create:
            self._add(key, owner=None, subject=None, terms=NO_TERMS)
        return self._entry(key).newest(messages)

    async def create(
        self,
        key: ConversationKey,
        *,
        owner: str | None,
        subject: str | None,
        terms: Terms = NO_TERMS,
    ) -> Conversation:
        """A new conversation. Raises `Conflict` if the key is taken."""
        self._expire()
        if key in self._entries:
            raise Conflict("the conversation exists")
        return self._add(key, owner=owner, subject=subject, terms=terms).about

    async def append(self, key: ConversationKey, messages: Sequence[Message]) -> None:
        """Adds the messages in order. Raises `NotFound` for an unknown key."""
        entry = self._known(key)
        size = sum(len(message.text) for message in messages)
        entry.messages.extend(messages)
        entry.characters += size
        length = entry.about.length + len(messages)
        entry.about = replace(entry.about, updated_at=self._clock(), length=length)
        entry.stamp = next(self._stamps)
        self._characters += size
        self._entries.move_to_end(key)
        self._shrink()

    async def update(
        self,
        key: ConversationKey,
        *,
        subject: str | None = None,
        status: ConversationStatus | None = None,
    ) -> Conversation:
        """The conversation after the change. Raises `NotFound`."""
        entry = self._known(key)
        if subject is not None:
            entry.about = replace(entry.about, subject=subject)
        if status is not None and entry.about.status == "open":
            entry.about = replace(entry.about, status=status)
        return entry.about

    async def mark_read(self, key: ConversationKey, count: int) -> None:
        """Notes that the first `count` messages were read. Raises `NotFound`."""
        entry = self._known(key)
        read = max(entry.about.read, min(count, entry.about.length))
        entry.about = replace(entry.about, read=read)

    async def delete(self, key: ConversationKey) -> None:
        """Forgets the conversation and its messages. Raises `NotFound`."""
        self._characters -= self._known(key).characters
        del self._entries[key]

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
        before = inf if cursor is None else decode_cursor(cursor)[1]
        earlier = (entry for entry in self._of(tenant, dialect, owner) if entry.stamp < before)
        return _page(earlier, limit, messages)

    async def count(
        self, tenant: str, dialect: str, *, owner: str | None, unread: bool = False
    ) -> int:
        """How many conversations `recent` would give in all, or the unread ones of them."""
        return sum(
            not unread or entry.about.length > entry.about.read
            for entry in self._of(tenant, dialect, owner)
        )

    async def find(
        self, tenant: str, dialect: str, public_id: str, *, messages: int
    ) -> Conversation:
        """As `load`, by the public id. Raises `NotFound`."""
        self._expire()
        for entry in self._entries.values():
            if entry.about.public_id == public_id and entry.about.key[:2] == (tenant, dialect):
                return entry.newest(messages)
        raise NotFound("unknown conversation")

    async def history(self, key: ConversationKey, *, limit: int, after: int = 0) -> MessagePage:
        """The messages from the oldest on, `limit` at a time. Raises `NotFound`."""
        entry = self._known(key)
        forgotten = entry.about.length - len(entry.messages)
        first = max(after - forgotten, 0)
        end = first + limit
        more = forgotten + end if end < len(entry.messages) else None
        return MessagePage(tuple(entry.messages[first:end]), more)

    async def scan(self, *, limit: int, cursor: str | None = None) -> ConversationPage:
        """Every conversation, those written to longest ago first. Raises `BadRequest`."""
        self._expire()
        after = -inf if cursor is None else decode_cursor(cursor)[1]
        later = (entry for entry in self._entries.values() if entry.stamp > after)
        return _page(later, limit, 0)

    def _of(self, tenant: str, dialect: str, owner: str | None) -> Iterator[_Entry]:
        """That owner's entries, last written to first."""
        self._expire()
        for key, entry in reversed(self._entries.items()):
            if key[:2] == (tenant, dialect) and entry.about.owner == owner:
                yield entry

    def _known(self, key: ConversationKey) -> _Entry:
        self._expire()
        return self._entry(key)

    def _entry(self, key: ConversationKey) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            raise NotFound("unknown conversation")
        return entry

    def _add(
        self, key: ConversationKey, *, owner: str | None, subject: str | None, terms: Terms
    ) -> _Entry:
        now = self._clock()
        about = Conversation(
            key, self._new_id(), owner, now, subject=subject, updated_at=now, terms=terms
        )
        entry = self._entries[key] = _Entry(about, next(self._stamps))
        self._shrink()
        return entry

    def _expire(self) -> None:
        if self._keep_s is None:
            return
        kept = self._clock() - self._keep_s
        while self._entries and next(iter(self._entries.values())).about.updated_at < kept:
            self._forget_oldest()

    def _shrink(self) -> None:
        while len(self._entries) > self._max_conversations:
            self._forget_oldest()
        while self._characters > self._max_characters and len(self._entries) > 1:
            self._forget_oldest()
        if self._characters > self._max_characters:
            self._shorten(next(iter(self._entries.values())))

    def _shorten(self, entry: _Entry) -> None:
        drop = 0
        while self._characters > self._max_characters:
            size = len(entry.messages[drop].text)
            entry.characters -= size
            self._characters -= size
            drop += 1
        del entry.messages[:drop]

    def _forget_oldest(self) -> None:
        _, entry = self._entries.popitem(last=False)
        self._characters -= entry.characters


def _page(entries: Iterable[_Entry], limit: int, messages: int) -> ConversationPage:
    found = list(itertools.islice(entries, limit + 1))
    cursor = None
    if len(found) > limit:
        last = found[limit - 1]
        cursor = encode_cursor(last.about.updated_at, last.stamp)
    return ConversationPage(tuple(entry.newest(messages) for entry in found[:limit]), cursor)
