"""Moves conversations between a store and JSON lines, over `ports.ConversationStore` alone.

An import judges every line before it writes anything, and writes each conversation in one step.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, BinaryIO, Final

from gateway.conversations.lines import (
    LINE_BYTES,
    BadLine,
    Defaults,
    from_line,
    time_text,
    to_line,
)
from gateway.errors import Conflict, NotFound
from gateway.messages import Conversation, ConversationKey, Message
from gateway.ports.conversations import ConversationStore

_PAGE: Final = 200
_TOGETHER: Final = 64

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which conversations are meant; None means any."""

    tenant: str | None = None
    dialect: str | None = None

    def has(self, key: ConversationKey) -> bool:
        """Whether the key is one of them."""
        return self.tenant in (None, key.tenant) and self.dialect in (None, key.dialect)


@dataclass(slots=True)
class Tally:
    """What became of an import's lines."""

    judged: int = 0
    imported: int = 0
    there: int = 0
    expired: int = 0
    problems: int = 0


@dataclass(slots=True)
class Import:
    """How lines are to be read: `tenants` are the configured ones, what was last written to
    before `oldest` (epoch seconds) would expire at once. `problem` is told each problem, `judging`
    and `progress` how many lines were judged and conversations imported so far."""

    defaults: Defaults
    tenants: Sequence[str]
    oldest: float
    skip_existing: bool
    problem: Tell
    judging: Callable[[int], None]
    progress: Callable[[int], None]
    tally: Tally = field(default_factory=Tally)


async def each(store: ConversationStore, chosen: Chosen) -> AsyncIterator[Conversation]:
    """Every chosen conversation once, without messages. Raises `StoreUnavailable`."""
    seen: set[ConversationKey] = set()
    cursor: str | None = None
    while True:
        page = await store.scan(limit=_PAGE, cursor=cursor)
        for conversation in page.conversations:
            # One that is written to meanwhile may come again.
            if chosen.has(conversation.key) and conversation.key not in seen:
                seen.add(conversation.key)
                yield conversation
        cursor = page.cursor
        if cursor is None:
            return


async def messages_of(store: ConversationStore, key: ConversationKey) -> list[Message]:
    """All messages of a conversation, oldest first. Raises `NotFound`."""
    found: list[Message] = []
    after: int | None = 0
    while after is not None:
        page = await store.history(key, limit=_PAGE, after=after)
        found += page.messages
        after = page.after
    return found


async def export(
    store: ConversationStore, chosen: Chosen, out: IO[bytes], progress: Callable[[int], None]
) -> int:
    """Writes the chosen conversations as lines; how many there were.

    Each is whole as of one moment of its own. Raises `StoreUnavailable` and `OSError`.
    """
    written = 0
    async for about in each(store, chosen):
        try:
            said = await messages_of(store, about.key)
        except NotFound:
            continue  # deleted since
        out.write(to_line(_whole(about, said)))
        written += 1
        progress(written)
    out.flush()
    return written


async def bring(store: ConversationStore, source: BinaryIO, how: Import) -> Tally:
    """Imports the lines of a file that can be read twice; nothing if any of them has a problem.

    A conversation that is there already is a problem of its own. Raises `StoreUnavailable` when
    the store stops answering; `how.tally` then says how far it came.
    """
    judge(source, how)
    if how.tally.problems:
        return how.tally
    source.seek(0)
    waiting: list[tuple[int, Conversation]] = []
    for number, line in _lines(source):
        conversation = from_line(line, how.defaults)
        if conversation.updated_at < how.oldest:
            how.tally.expired += 1
            continue
        waiting.append((number, conversation))
        if len(waiting) == _TOGETHER:
            await _restore(store, waiting, how)
            waiting = []
    await _restore(store, waiting, how)
    return how.tally


def judge(source: BinaryIO, how: Import) -> None:
    """Tells every problem of every line; `how.tally` counts them."""
    keys: dict[ConversationKey, int] = {}
    public_ids: dict[str, int] = {}
    for number, line in _lines(source):
        try:
            conversation = from_line(line, how.defaults)
        except BadLine as error:
            problems = error.problems
        else:
            key = conversation.key
            first = keys.setdefault(key, number)
            twin = public_ids.setdefault(conversation.public_id, number)
            problems = []
            if key.tenant not in how.tenants:
                problems.append(f"tenant {key.tenant!r} is not in the configuration")
            if first != number:
                problems.append(f"is the conversation of line {first}")
            elif twin != number:
                problems.append(f"public_id is that of line {twin}")
        for text in problems:
            how.problem(f"line {number}: {plain(text)}")
        how.tally.problems += len(problems)
        how.tally.judged += 1
        how.judging(how.tally.judged)


async def _restore(
    store: ConversationStore, waiting: Sequence[tuple[int, Conversation]], how: Import
) -> None:
    results = await asyncio.gather(
        *(store.restore(conversation) for _, conversation in waiting), return_exceptions=True
    )
    failure: BaseException | None = None
    for (number, conversation), result in zip(waiting, results, strict=True):
        if result is None:
            how.tally.imported += 1
        elif not isinstance(result, Conflict):
            failure = result
        elif how.skip_existing and await _is_there(store, conversation.key):
            how.tally.there += 1
        else:
            how.problem(f"line {number}: the conversation or its public_id is there already")
            how.tally.problems += 1
    if failure is not None:
        raise failure
    how.progress(how.tally.imported)


async def _is_there(store: ConversationStore, key: ConversationKey) -> bool:
    try:
        await store.load(key, messages=0)
    except NotFound:
        return False
    return True


def _lines(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; of one that is too long the beginning."""
    number = 0
    while line := source.readline(LINE_BYTES + 2):
        number += 1
        rest = line
        while not rest.endswith(b"\n") and len(rest) == LINE_BYTES + 2:
            rest = source.readline(LINE_BYTES + 2)
        if line.strip():
            yield number, line


def described(conversation: Conversation, messages: Sequence[Message]) -> Iterator[str]:
    """A conversation for reading: what is known of it, then who said what, and when."""
    key = conversation.key
    yield f"{key.tenant} / {key.dialect} / {key.id}"
    yield f"  public id  {conversation.public_id}"
    if conversation.owner is not None:
        yield f"  owner      {plain(conversation.owner)}"
    if conversation.subject is not None:
        yield f"  subject    {plain(conversation.subject)}"
    yield f"  status     {conversation.status}"
    yield f"  started    {time_text(conversation.created_at)}"
    yield f"  written to {time_text(conversation.updated_at)}"
    yield f"  messages   {conversation.length} ({conversation.read} read)"
    for message in messages:
        mark = " (cut short)" if message.status == "partial" else ""
        yield ""
        yield f"{time_text(message.created_at)} {message.role}{mark}"
        for line in message.text.splitlines():
            yield f"  {plain(line)}"
        for call in message.calls:
            yield f"  > {plain(call.name)}({plain(call.arguments)})"
            yield f"  < {'no result' if call.result is None else plain(call.result)}"


def plain(text: str) -> str:
    """The text on one line, without what could command a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _whole(about: Conversation, said: Sequence[Message]) -> Conversation:
    return Conversation(
        about.key,
        about.public_id,
        about.owner,
        about.created_at,
        tuple(said),
        about.subject,
        about.updated_at,
        len(said),
        min(about.read, len(said)),
        about.status,
        about.terms,
    )
