from dataclasses import replace

import pytest

from gateway.errors import Conflict, NotFound
from gateway.messages import Conversation, ConversationKey, KeptCall, Message, Terms
from gateway.ports.conversations import ConversationStore
from tests.stores.rig import begun
from tests.stores.samples import KEY, OTHER, Clock, exchange

PUBLIC = "0123456789abcdef" * 2
MESSAGES = (
    *exchange(1),
    Message("q2", "user", "Größe? 😀", 1001.5),
    Message("a2", "assistant", "", 1002.5, "partial", (KeptCall("c", "lookup", "{}", None),)),
)
WHOLE = Conversation(
    KEY,
    PUBLIC,
    "email:ada@example.com",
    1000.5,
    MESSAGES,
    "Mein Paket",
    1002.75,
    4,
    3,
    "completed",
    Terms(agent="support", variables={"name": "Ada"}, expires_at=2000.5, details={"a": [1]}),
)
LIST = ("acme", "widget")


async def test_a_conversation_comes_back_as_it_was(store: ConversationStore) -> None:
    await store.restore(WHOLE)
    assert await store.load(KEY, messages=100) == WHOLE
    assert await store.find(*LIST, PUBLIC, messages=100) == WHOLE
    assert (await store.history(KEY, limit=100)).messages == MESSAGES
    page = await store.recent(*LIST, owner=WHOLE.owner, limit=9, messages=100)
    assert page.conversations == (WHOLE,)
    assert await store.count(*LIST, owner=WHOLE.owner, unread=True) == 1
    assert (await store.scan(limit=9)).conversations == (replace(WHOLE, messages=()),)


async def test_a_restored_conversation_goes_on(store: ConversationStore) -> None:
    await store.restore(replace(WHOLE, owner=None, status="open"))
    turn = await begun(store)
    assert turn.conversation.messages == MESSAGES
    await store.commit(turn.lease, exchange(3))
    found = await store.load(KEY, messages=2)
    assert (found.length, found.messages) == (6, tuple(exchange(3)))


async def test_an_empty_conversation_can_be_restored(store: ConversationStore) -> None:
    empty = replace(WHOLE, messages=(), length=0, read=0)
    await store.restore(empty)
    assert await store.load(KEY, messages=9) == empty


async def test_what_is_there_is_not_restored_over(store: ConversationStore) -> None:
    mine = await store.create(KEY, owner=None, subject="mine")
    with pytest.raises(Conflict):
        await store.restore(WHOLE)
    assert await store.load(KEY, messages=9) == mine
    with pytest.raises(Conflict):
        await store.restore(
            replace(WHOLE, key=ConversationKey("acme", "widget", "c9"), public_id=mine.public_id)
        )
    with pytest.raises(NotFound):
        await store.load(ConversationKey("acme", "widget", "c9"), messages=9)


async def test_the_restored_are_listed_by_their_time(
    store: ConversationStore, clock: Clock
) -> None:
    for number, seconds in enumerate((1003.0, 1001.0, 1002.0)):
        key = ConversationKey("acme", "widget", f"c{number}")
        public_id = f"{number:032d}"
        await store.restore(
            replace(WHOLE, key=key, public_id=public_id, owner=None, updated_at=seconds)
        )
    await store.create(ConversationKey("acme", "widget", "now"), owner=None, subject=None)
    page = await store.recent(*LIST, owner=None, limit=9)
    assert [entry.key.id for entry in page.conversations] == ["now", "c0", "c2", "c1"]
    clock.now = 1001.5 + 90 * 86_400
    page = await store.recent(*LIST, owner=None, limit=9)
    assert [entry.key.id for entry in page.conversations] == ["now", "c0", "c2"]


async def test_a_restored_conversation_is_its_tenants(store: ConversationStore) -> None:
    await store.restore(WHOLE)
    with pytest.raises(NotFound):
        await store.load(OTHER, messages=1)
