"""Conversations in this process's memory: gone when it ends, seen by no other worker.

Bounded by `max_conversations` and by `max_characters` of message text over all of them; beyond
either, the conversation that was written to longest ago is forgotten whole, and of a single one
that is too long its oldest messages. A conversation that nobody wrote to for `retention_days`
is forgotten too.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.errors import Conflict, NotFound
from gateway.messages import Conversation, ConversationKey, Message
from gateway.stores.public_id import new_public_id


@dataclass(slots=True)
class _Entry:
    about: Conversation
    updated_at: float
    messages: list[Message] = field(default_factory=list)
    characters: int = 0


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

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._characters = 0

    async def load(self, key: ConversationKey, *, create: bool, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages, oldest first."""
        self._expire()
        entry = self._entries.get(key)
        if entry is None:
            if not create:
                raise NotFound("unknown conversation")
            entry = self._add(key, owner=None, subject=None)
        newest = entry.messages[-messages:] if messages > 0 else ()
        return replace(entry.about, messages=tuple(newest))

    async def create(
        self, key: ConversationKey, *, owner: str | None, subject: str | None
    ) -> Conversation:
        """A new conversation. Raises `Conflict` if the key is taken."""
        self._expire()
        if key in self._entries:
            raise Conflict("the conversation exists")
        return self._add(key, owner=owner, subject=subject).about

    async def append(self, key: ConversationKey, messages: Sequence[Message]) -> None:
        """Adds the messages in order. Raises `NotFound` for an unknown key."""
        self._expire()
        entry = self._entries.get(key)
        if entry is None:
            raise NotFound("unknown conversation")
        size = sum(len(message.text) for message in messages)
        entry.messages.extend(messages)
        entry.characters += size
        entry.updated_at = self._clock()
        self._characters += size
        self._entries.move_to_end(key)
        self._shrink()

    def _add(self, key: ConversationKey, *, owner: str | None, subject: str | None) -> _Entry:
        now = self._clock()
        about = Conversation(key, self._new_id(), owner, now, subject=subject)
        entry = self._entries[key] = _Entry(about, now)
        self._shrink()
        return entry

    def _expire(self) -> None:
        if self._keep_s is None:
            return
        oldest_kept = self._clock() - self._keep_s
        while self._entries and next(iter(self._entries.values())).updated_at < oldest_kept:
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
