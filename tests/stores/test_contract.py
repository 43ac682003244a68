import asyncio
import itertools
import re
from dataclasses import replace
from typing import get_args

import pytest

from gateway.errors import Conflict, NotFound
from gateway.messages import ConversationKey, Message, MessageStatus, Role
from gateway.ports.conversations import ConversationStore
from tests.stores.rig import add, begin, begun, make
from tests.stores.samples import KEY, OTHER, exchange, expected_ids, ids

TEXTS = {
    "nothing": "",
    "eight thousand astral characters": "\U0001f600\U00020bb7" * 4000,
    "right to left": "\u202eשלום עולם‏ مرحبا\u202c",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85\u2028\u2029\ufeff\uffff",
    "a nul in the middle": "before\x00after",
    "combining": "e\u0301 \u1100\u1161\u11a8 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a megabyte": "0123456789abcdef" * 65536,
    "white space around": "  \t\r\n text \r\n ",
}


class TestContract:
    async def test_an_unknown_conversation_is_not_found(self, store: ConversationStore) -> None:
        with pytest.raises(NotFound):
            await store.load(KEY, messages=10)
        with pytest.raises(NotFound):
            await begin(store, create=False)
        with pytest.raises(NotFound):
            await store.load(KEY, messages=10)

    async def test_a_conversation_begins_empty(self, store: ConversationStore) -> None:
        made = await store.create(KEY, owner=None, subject=None)
        assert (made.key, made.owner, made.subject, made.messages) == (KEY, None, None, ())
        assert made.created_at == made.updated_at == 5000.25
        assert await store.load(KEY, messages=10) == made

    async def test_a_conversation_keeps_its_owner_and_subject(
        self, store: ConversationStore
    ) -> None:
        made = await store.create(KEY, owner="a@example.com", subject="Wo ist mein Paket?")
        assert (made.owner, made.subject) == ("a@example.com", "Wo ist mein Paket?")
        assert await store.load(KEY, messages=10) == made

    async def test_a_taken_key_conflicts_and_stays_as_it_was(
        self, store: ConversationStore
    ) -> None:
        made = await store.create(KEY, owner="first", subject=None)
        await add(store, KEY, exchange(1))
        with pytest.raises(Conflict):
            await store.create(KEY, owner="second", subject="mine now")
        found = await store.load(KEY, messages=10)
        assert replace(found, messages=(), length=0) == made
        assert ids(found.messages) == ["q1", "a1"]

    async def test_public_ids_are_unique_and_of_the_documented_form(
        self, store: ConversationStore
    ) -> None:
        made = [
            await store.create(ConversationKey("acme", "widget", str(n)), owner=None, subject=None)
            for n in range(200)
        ]
        assert len({entry.public_id for entry in made}) == 200
        assert all(re.fullmatch("[a-z0-9]{32}", entry.public_id) for entry in made)

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    async def test_text_comes_back_as_it_went_in(self, store: ConversationStore, text: str) -> None:
        sent = Message("m1", "assistant", text, 1763.125, "partial")
        await store.create(KEY, owner=text[:100], subject=text[:100])
        await add(store, KEY, [sent])
        found = await store.load(KEY, messages=1)
        assert found.messages == (sent,)
        assert (found.owner, found.subject) == (text[:100], text[:100])

    async def test_every_role_and_status_comes_back(self, store: ConversationStore) -> None:
        sent = tuple(
            Message(f"{role} {status}", role, "text", 1.0, status)
            for role, status in itertools.product(get_args(Role), get_args(MessageStatus))
        )
        await make(store)
        await add(store, KEY, sent)
        assert (await store.load(KEY, messages=100)).messages == sent

    async def test_ids_of_any_characters_are_told_apart(self, store: ConversationStore) -> None:
        names = ["a", "A", "a ", "ä", "a\u0308", "a%", "a_", "a\x00b", "a'b", "1", "01", "x" * 5000]
        for number, name in enumerate(names):
            key = ConversationKey("acme", "widget", name)
            await store.create(key, owner=None, subject=None)
            await add(store, key, exchange(number))
        for number, name in enumerate(names):
            key = ConversationKey("acme", "widget", name)
            found = await store.load(key, messages=100)
            assert ids(found.messages) == [f"q{number}", f"a{number}"]

    async def test_the_newest_messages_come_oldest_first(self, store: ConversationStore) -> None:
        await make(store)
        for number in range(50):
            await add(store, KEY, exchange(number))
        everything = expected_ids(range(50))
        for count in (1, 2, 7, 99, 100, 101, 10_000):
            found = await store.load(KEY, messages=count)
            assert ids(found.messages) == everything[-count:]

    @pytest.mark.parametrize("count", [0, -1])
    async def test_no_messages_asked_for_are_none(
        self, store: ConversationStore, count: int
    ) -> None:
        await make(store)
        await add(store, KEY, exchange(1))
        assert (await store.load(KEY, messages=count)).messages == ()

    async def test_a_repeated_message_id_is_a_message_of_its_own(
        self, store: ConversationStore
    ) -> None:
        await make(store)
        await add(store, KEY, exchange(1))
        await add(store, KEY, exchange(1))
        found = await store.load(KEY, messages=10)
        assert ids(found.messages) == ["q1", "a1", "q1", "a1"]

    @pytest.mark.parametrize(
        "foreign",
        [
            ConversationKey("globex", "widget", "c1"),
            ConversationKey("acme", "helper", "c1"),
            ConversationKey("acme", "widget", "c2"),
        ],
    )
    async def test_a_foreign_conversation_is_an_unknown_one(
        self, store: ConversationStore, foreign: ConversationKey
    ) -> None:
        mine = await make(store)
        await add(store, KEY, exchange(1))
        with pytest.raises(NotFound):
            await store.load(foreign, messages=10)
        with pytest.raises(NotFound):
            await begin(store, foreign, create=False)
        theirs = await make(store, foreign)
        assert theirs.messages == ()
        assert theirs.public_id != mine.public_id
        await add(store, foreign, exchange(3))
        assert ids((await store.load(KEY, messages=10)).messages) == ["q1", "a1"]

    async def test_of_creations_at_once_one_succeeds(self, store: ConversationStore) -> None:
        results = await asyncio.gather(
            *(store.create(KEY, owner=str(n), subject=None) for n in range(20)),
            return_exceptions=True,
        )
        made = [result for result in results if not isinstance(result, BaseException)]
        assert len(made) == 1
        assert sum(isinstance(result, Conflict) for result in results) == 19
        assert await store.load(KEY, messages=1) == made[0]

    async def test_fifty_writers_lose_and_mix_nothing(self, store: ConversationStore) -> None:
        keys = [ConversationKey("acme", "widget", f"c{n}") for n in range(10)]
        for key in keys:
            await make(store, key)

        async def write(writer: int) -> None:
            for turn in range(8):
                await add(store, keys[writer % 10], exchange(writer * 100 + turn))
                await store.load(keys[writer % 7], messages=5)

        await asyncio.gather(*(write(writer) for writer in range(50)))
        for place, key in enumerate(keys):
            found = ids((await store.load(key, messages=1000)).messages)
            questions, answers = found[::2], found[1::2]
            assert [id_[1:] for id_ in questions] == [id_[1:] for id_ in answers]
            for writer in range(place, 50, 10):
                mine = [id_ for id_ in questions if int(id_[1:]) // 100 == writer]
                assert mine == [f"q{writer * 100 + turn}" for turn in range(8)]

    async def test_a_call_cancelled_anywhere_happens_wholly_or_not_at_all(
        self, store: ConversationStore
    ) -> None:
        await make(store, OTHER)
        for steps in range(40):
            key = ConversationKey("acme", "widget", f"cancelled after {steps}")
            calls = asyncio.create_task(_turn(store, key))
            neighbour = asyncio.create_task(add(store, OTHER, exchange(steps)))
            for _ in range(steps):
                await asyncio.sleep(0)
            calls.cancel()
            await asyncio.wait([calls])
            await neighbour
            found = await make(store, key)
            assert ids(found.messages) in ([], ["q1", "a1"])
            theirs = await store.load(OTHER, messages=2)
            assert ids(theirs.messages) == [f"q{steps}", f"a{steps}"]
        whole = await store.load(OTHER, messages=1000)
        assert ids(whole.messages) == expected_ids(range(40))


async def _turn(store: ConversationStore, key: ConversationKey) -> None:
    turn = await begun(store, key)
    await store.commit(turn.lease, exchange(1))
