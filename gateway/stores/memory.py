"""Conversations in this process's memory: gone when it ends, seen by no other worker.

Bounded by `max_conversations` and by `max_characters` of text, tool calls and terms over all of
them; beyond either, the conversation that was written to longest ago is forgotten whole, and of a
single one that is too long its oldest messages. A conversation that nobody wrote to for
`retention_days` is forgotten too. Recorded replies have bounds of their own (`RecordShelf`).
"""

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from gateway.errors import Conflict, ConversationBusy, NotFound, NotOwner
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
from gateway.stores.forms import decode_cursor, encode_cursor, encode_terms
from gateway.stores.leasing import LEASE_S, new_nonce
from gateway.stores.public_id import new_public_id
from gateway.stores.shelf import RecordShelf

_Owner = tuple[str, str, str | None]


@dataclass(slots=True)
class _Entry:
    """`about` has no messages; `stamp` is higher than that of every entry written to before.

    `token` is the newest lease's, `committed` that of the newest that was written under; every
    token of this entry is larger than `born`. `leased_until` is monotonic.
    """

    about: Conversation
    stamp: int
    born: int
    messages: list[Message] = field(default_factory=list)
    characters: int = 0
    token: int = 0
    committed: int = 0
    leased_until: float | None = None

    @property
    def owner(self) -> _Owner:
        return self.about.key.tenant, self.about.key.dialect, self.about.owner

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
        lease_s: float = LEASE_S,
    ) -> None:
        self.lease_s = lease_s
        self._keep_s = None if retention_days is None else retention_days * 86_400.0
        self._clock = clock
        self._new_id = new_id
        self._max_conversations = max_conversations
        self._max_characters = max_characters
        # Written to longest ago first: the order in which conversations expire and are evicted.
        self._entries: OrderedDict[ConversationKey, _Entry] = OrderedDict()
        # The same entries in the same order, by tenant, dialect and owner.
        self._owned: dict[_Owner, OrderedDict[ConversationKey, _Entry]] = {}
        self._characters = 0
        self._stamps = itertools.count()
        # One counter for all: a conversation that is made anew never repeats a token.
        self._tokens = itertools.count(1)
        self._records = RecordShelf(clock)

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._owned.clear()
        self._records.clear()
        self._characters = 0

    async def load(self, key: ConversationKey, *, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages. Raises `NotFound`."""
        return self._known(key).newest(messages)

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

    async def restore(self, conversation: Conversation) -> None:
        """Adds a whole conversation. Raises `Conflict` if its key or public id is taken."""
        self._expire()
        taken = (
            entry.about.public_id == conversation.public_id for entry in self._entries.values()
        )
        if conversation.key in self._entries or any(taken):
            raise Conflict("the conversation exists")
        entry = self._insert(replace(conversation, messages=(), length=0))
        self._extend(entry, conversation.messages)
        entry.about = replace(entry.about, updated_at=conversation.updated_at)
        self._sort()

    async def begin(
        self,
        key: ConversationKey,
        *,
        identity: str | None,
        create: bool,
        messages: int,
        once: Once | None = None,
    ) -> Leased | Recorded:
        """Lock and `load`, or the recorded reply; see `ports.ConversationStore`."""
        self._expire()
        if once is not None:
            record = self._records.find(once, running=self._is_live, known=self._is_known)
            if record is not None:
                return Recorded(self._entry(key).newest(messages), record)
        if key not in self._entries and create:
            self._add(key, owner=identity, subject=None, terms=NO_TERMS)
        entry = self._entry(key)
        if entry.about.owner != identity:
            raise NotOwner("the conversation has another owner")
        now = time.monotonic()
        if entry.leased_until is not None and entry.leased_until > now:
            raise ConversationBusy("a turn is running on this conversation")
        entry.token = next(self._tokens)
        entry.leased_until = now + self.lease_s
        lease = Lease(key, entry.token, new_nonce(), once)
        if once is not None:
            self._records.reserve(once, lease)
        return Leased(entry.newest(messages), lease)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Lets the leases live for another `lease_s`."""
        until = time.monotonic() + self.lease_s
        for lease in leases:
            entry = self._entries.get(lease.key)
            if entry is not None and entry.token == lease.token and entry.leased_until is not None:
                entry.leased_until = until

    async def commit(
        self, lease: Lease, messages: Sequence[Message], *, record: bytes | None = None
    ) -> None:
        """Adds the messages and ends the lease; see `ports.ConversationStore`."""
        entry = self._known(lease.key)
        if entry.committed == lease.token:
            return
        if entry.token != lease.token:
            raise Conflict("another turn has taken the conversation over")
        entry.committed = lease.token
        entry.leased_until = None
        self._records.keep(lease, record)
        self._extend(entry, messages)

    async def release(self, lease: Lease) -> None:
        """Ends the lease without a message."""
        entry = self._entries.get(lease.key)
        if entry is not None and entry.token == lease.token:
            entry.leased_until = None
        self._records.give_up(lease)

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
        self._forget(self._known(key))

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
        self._expire()
        before = inf if cursor is None else decode_cursor(cursor)[1]
        entries = self._owned.get((tenant, dialect, owner))
        if entries is None:
            return ConversationPage((), None)
        earlier = (entry for entry in reversed(entries.values()) if entry.stamp < before)
        return _page(earlier, limit, messages)

    async def count(
        self, tenant: str, dialect: str, *, owner: str | None, unread: bool = False
    ) -> int:
        """How many conversations `recent` would give in all, or the unread ones of them."""
        self._expire()
        entries = self._owned.get((tenant, dialect, owner))
        if entries is None:
            return 0
        if not unread:
            return len(entries)
        return sum(entry.about.length > entry.about.read for entry in entries.values())

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
        first, end = max(after - forgotten, 0), max(after + limit - forgotten, 0)
        more = forgotten + end if end < len(entry.messages) else None
        return MessagePage(tuple(entry.messages[first:end]), more)

    async def scan(self, *, limit: int, cursor: str | None = None) -> ConversationPage:
        """Every conversation, those written to longest ago first. Raises `BadRequest`."""
        self._expire()
        after = -inf if cursor is None else decode_cursor(cursor)[1]
        later = (entry for entry in self._entries.values() if entry.stamp > after)
        return _page(later, limit, 0)

    def _is_live(self, lease: Lease) -> bool:
        entry = self._entries.get(lease.key)
        if entry is None or entry.token != lease.token or entry.leased_until is None:
            return False
        return entry.leased_until > time.monotonic()

    def _is_known(self, lease: Lease) -> bool:
        """Whether the conversation is the one that the lease was given for, not a later one."""
        entry = self._entries.get(lease.key)
        return entry is not None and entry.born < lease.token

    def _extend(self, entry: _Entry, messages: Sequence[Message]) -> None:
        size = sum(map(_size, messages))
        entry.messages.extend(messages)
        entry.characters += size
        length = entry.about.length + len(messages)
        entry.about = replace(entry.about, updated_at=self._clock(), length=length)
        entry.stamp = next(self._stamps)
        self._characters += size
        self._entries.move_to_end(entry.about.key)
        self._owned[entry.owner].move_to_end(entry.about.key)
        self._shrink()

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
        entry = self._insert(about)
        self._shrink()
        return entry

    def _insert(self, about: Conversation) -> _Entry:
        entry = _Entry(about, next(self._stamps), next(self._tokens))
        self._entries[about.key] = entry
        self._owned.setdefault(entry.owner, OrderedDict())[about.key] = entry
        entry.characters = len(about.subject or "") + len(encode_terms(about.terms))
        self._characters += entry.characters
        return entry

    def _expire(self) -> None:
        if self._keep_s is None:
            return
        kept = self._clock() - self._keep_s
        while self._entries and next(iter(self._entries.values())).about.updated_at < kept:
            self._forget(next(iter(self._entries.values())))

    def _sort(self) -> None:
        """Puts what was restored where its time belongs."""
        for entry in sorted(self._entries.values(), key=lambda entry: entry.about.updated_at):
            entry.stamp = next(self._stamps)
            self._entries.move_to_end(entry.about.key)
            self._owned[entry.owner].move_to_end(entry.about.key)

    def _shrink(self) -> None:
        while len(self._entries) > self._max_conversations:
            self._forget(next(iter(self._entries.values())))
        while self._characters > self._max_characters and len(self._entries) > 1:
            self._forget(next(iter(self._entries.values())))
        if self._characters > self._max_characters:
            self._shorten(next(iter(self._entries.values())))

    def _shorten(self, entry: _Entry) -> None:
        drop = 0
        while self._characters > self._max_characters and drop < len(entry.messages):
            size = _size(entry.messages[drop])
            entry.characters -= size
            self._characters -= size
            drop += 1
        del entry.messages[:drop]

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry.about.key]
        owned = self._owned[entry.owner]
        del owned[entry.about.key]
        if not owned:
            del self._owned[entry.owner]
        self._characters -= entry.characters


def _size(message: Message) -> int:
    calls = sum(len(call.arguments) + len(call.result or "") for call in message.calls)
    return len(message.text) + calls


def _page(entries: Iterable[_Entry], limit: int, messages: int) -> ConversationPage:
    found = list(itertools.islice(entries, limit + 1))
    cursor = None
    if len(found) > limit:
        last = found[limit - 1]
        cursor = encode_cursor(last.about.updated_at, last.stamp)
    return ConversationPage(tuple(entry.newest(messages) for entry in found[:limit]), cursor)
