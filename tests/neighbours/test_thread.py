import pytest

from gateway.errors import NotFound
from gateway.messages import ConversationKey, Message
from gateway.neighbours.thread import newest
from gateway.stores.memory import MemoryStore
from tests.stores.rig import add, make

KEY = ConversationKey("acme", "helper", "c")


async def shown(store: MemoryStore, *, messages: int = 1000, characters: int = 10_000) -> list[str]:
    conversation = await store.load(KEY, messages=0)
    found = await newest(store, conversation, messages=messages, characters=characters)
    return [message.id for message in found]


async def filled(count: int, text: str = "x" * 10, *, room: int = 10**6) -> MemoryStore:
    store = MemoryStore(max_characters=room)
    await make(store, KEY)
    for number in range(count):
        await add(store, KEY, [Message(str(number), "user", text, 1.0)])
    return store


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 100, 123])
@pytest.mark.parametrize("messages", [1, 50, 51, 1000])
async def test_the_newest_messages_come_oldest_first(count: int, messages: int) -> None:
    store = await filled(count)
    everything = [str(number) for number in range(count)]
    assert await shown(store, messages=messages) == everything[-messages:]


@pytest.mark.parametrize(
    ("characters", "count"), [(0, 1), (9, 1), (10, 1), (19, 1), (20, 2), (799, 79), (800, 80)]
)
async def test_older_ones_are_left_out_when_they_do_not_fit(characters: int, count: int) -> None:
    store = await filled(80)
    assert len(await shown(store, characters=characters)) == count


async def test_what_the_store_forgot_is_not_there_and_nothing_twice() -> None:
    store = await filled(130, room=605)
    assert await shown(store) == [str(number) for number in range(70, 130)]


async def test_a_conversation_that_is_deleted_meanwhile_is_not_found() -> None:
    store = await filled(3)
    conversation = await store.load(KEY, messages=0)
    await store.delete(KEY)
    with pytest.raises(NotFound):
        await newest(store, conversation, messages=10, characters=10)
