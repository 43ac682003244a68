from dataclasses import replace

import pytest

from gateway.errors import NotFound
from gateway.messages import ConversationKey, KeptCall, Message, Terms
from gateway.stores import MemoryStore
from tests.stores.rig import add, make
from tests.stores.samples import KEY, OTHER, exchange, ids

DAY = 86_400.0


def key(number: int) -> ConversationKey:
    return ConversationKey("acme", "widget", f"c{number}")


async def known(store: MemoryStore, count: int) -> list[int]:
    found = []
    for number in range(count):
        try:
            await store.load(key(number), messages=0)
        except NotFound:
            continue
        found.append(number)
    return found


async def test_the_conversation_written_to_longest_ago_is_forgotten_first() -> None:
    store = MemoryStore(max_conversations=3)
    for number in range(3):
        await store.create(key(number), owner=None, subject=None)
    await add(store, key(0), exchange(1))
    await store.load(key(1), messages=5)  # reading alone keeps nothing
    await store.create(key(3), owner=None, subject=None)
    assert await known(store, 4) == [0, 2, 3]


async def test_text_over_the_bound_is_made_room_for() -> None:
    store = MemoryStore(max_characters=100)
    for number in range(3):
        await store.create(key(number), owner=None, subject=None)
        await add(store, key(number), [Message("m", "user", "x" * 40, 1.0)])
    assert await known(store, 3) == [1, 2]
    await add(store, key(1), [Message("m", "user", "x" * 20, 1.0)])
    assert await known(store, 3) == [1, 2]


async def test_one_conversation_over_the_bound_loses_its_oldest_messages() -> None:
    store = MemoryStore(max_characters=100)
    await store.create(key(0), owner=None, subject=None)
    for number in range(10):
        await add(store, key(0), [Message(f"m{number}", "user", "x" * 30, 1.0)])
    found = await store.load(key(0), messages=100)
    assert ids(found.messages) == ["m7", "m8", "m9"]


async def test_tool_calls_count_as_text() -> None:
    store = MemoryStore(max_characters=1000)
    call = KeptCall("c1", "lookup", "{}", "x" * 400)
    for number in range(3):
        await make(store, key(number))
        question, answer = exchange(number)
        await add(store, key(number), [question, replace(answer, calls=(call,))])
    assert await known(store, 3) == [1, 2]


async def test_a_message_over_the_bound_is_not_kept() -> None:
    store = MemoryStore(max_characters=100)
    await store.create(key(0), owner=None, subject=None)
    await add(store, key(0), [Message("m", "user", "x" * 101, 1.0)])
    assert (await store.load(key(0), messages=100)).messages == ()


async def test_what_nobody_wrote_to_expires() -> None:
    now = 0.0
    store = MemoryStore(retention_days=90, clock=lambda: now)
    await store.create(KEY, owner=None, subject=None)
    await store.create(OTHER, owner=None, subject=None)
    now = 50 * DAY
    await add(store, KEY, exchange(1))
    now = 91 * DAY
    with pytest.raises(NotFound):
        await store.load(OTHER, messages=1)
    assert ids((await store.load(KEY, messages=2)).messages) == ["q1", "a1"]
    now = 141 * DAY
    with pytest.raises(NotFound):
        await add(store, KEY, exchange(2))


async def test_a_closed_store_has_forgotten_everything() -> None:
    store = MemoryStore()
    await store.open()
    await store.create(KEY, owner=None, subject=None)
    await store.close()
    with pytest.raises(NotFound):
        await store.load(KEY, messages=1)


async def test_what_conversations_are_started_with_counts_as_text() -> None:
    store = MemoryStore(max_characters=1000)
    terms = Terms(details={"a": "x" * 350})
    for number in range(3):
        await store.create(key(number), owner=None, subject="s" * 50, terms=terms)
    assert await known(store, 3) == [1, 2]
    small = MemoryStore(max_characters=100)
    await small.create(key(0), owner=None, subject=None, terms=terms)
    await add(small, key(0), exchange(1))
    assert (await small.load(key(0), messages=9)).messages == ()


async def test_what_is_forgotten_is_listed_no_more() -> None:
    store = MemoryStore(max_conversations=3)
    for number in range(5):
        await store.create(key(number), owner=None, subject=None)
    await store.delete(key(3))
    page = await store.recent("acme", "widget", owner=None, limit=9)
    assert [entry.key for entry in page.conversations] == [key(4), key(2)]
    assert await store.count("acme", "widget", owner=None) == 2
