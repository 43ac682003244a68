import asyncio
import itertools
from collections.abc import Coroutine
from pathlib import Path

import pytest

from gateway.errors import (
    Conflict,
    ConversationBusy,
    KeyReused,
    NotFound,
    NotOwner,
)
from gateway.messages import ConversationKey, KeptCall, Leased, Message, Once, Recorded
from gateway.ports.conversations import ConversationStore
from gateway.stores.leasing import RECORD_BYTES
from tests.stores.rig import begin, begun, opened, sql
from tests.stores.samples import KEY, OTHER, Clock, exchange, expected_ids, ids

ELSEWHERE = ConversationKey("acme", "widget", "c2")
ADA = "email:ada@example.com"
ONCE = Once("a" * 64, "1" * 64)
SAME_KEY = Once("a" * 64, "2" * 64)
OTHER_KEY = Once("b" * 64, "1" * 64)


async def said(store: ConversationStore, key: ConversationKey = KEY) -> list[str]:
    return ids((await store.load(key, messages=1000)).messages)


class TestLease:
    async def test_a_turn_loads_and_stores(self, store: ConversationStore) -> None:
        first = await begun(store)
        assert first.conversation.messages == ()
        await store.commit(first.lease, exchange(1))
        second = await begun(store)
        assert ids(second.conversation.messages) == ["q1", "a1"]
        assert second.lease.token > first.lease.token
        assert second.conversation == await store.load(KEY, messages=100)

    async def test_a_conversation_in_a_turn_is_busy_for_others(
        self, store: ConversationStore
    ) -> None:
        first = await begun(store)
        with pytest.raises(ConversationBusy):
            await begin(store)
        other = await begun(store, OTHER)
        await store.commit(first.lease, exchange(1))
        await store.commit(other.lease, exchange(2))
        assert (await said(store), await said(store, OTHER)) == (["q1", "a1"], ["q2", "a2"])

    async def test_a_released_conversation_is_free_and_unchanged(
        self, store: ConversationStore
    ) -> None:
        first = await begun(store)
        await store.release(first.lease)
        await store.release(first.lease)
        second = await begun(store)
        await store.release(first.lease)
        with pytest.raises(ConversationBusy):
            await begin(store)
        await store.commit(second.lease, exchange(2))
        assert await said(store) == ["q2", "a2"]

    async def test_committing_again_does_nothing(self, store: ConversationStore) -> None:
        turn = await begun(store)
        for _ in range(3):
            await store.commit(turn.lease, exchange(1))
        await store.release(turn.lease)
        assert await said(store) == ["q1", "a1"]

    async def test_a_dead_holders_conversation_is_free_after_a_while(
        self, brief: ConversationStore
    ) -> None:
        await begun(brief)
        with pytest.raises(ConversationBusy):
            await begin(brief)
        await asyncio.sleep(brief.lease_s * 1.5)
        await brief.commit((await begun(brief)).lease, exchange(2))
        assert await said(brief) == ["q2", "a2"]

    async def test_what_a_former_holder_writes_is_refused(self, brief: ConversationStore) -> None:
        zombie = await begun(brief)
        await asyncio.sleep(brief.lease_s * 1.5)
        heir = await begun(brief)
        for lease in (zombie.lease, zombie.lease):
            with pytest.raises(Conflict):
                await brief.commit(lease, exchange(1))
        await brief.renew([zombie.lease])
        await brief.release(zombie.lease)
        with pytest.raises(ConversationBusy):
            await begin(brief)
        await brief.commit(heir.lease, exchange(2))
        with pytest.raises(Conflict):
            await brief.commit(zombie.lease, exchange(1))
        assert await said(brief) == ["q2", "a2"]

    async def test_a_late_write_that_nobody_was_before_is_taken(
        self, brief: ConversationStore
    ) -> None:
        turn = await begun(brief)
        await asyncio.sleep(brief.lease_s * 1.5)
        await brief.commit(turn.lease, exchange(1))
        assert await said(brief) == ["q1", "a1"]

    async def test_a_renewed_lease_stays(self, brief: ConversationStore) -> None:
        turn = await begun(brief)
        other = await begun(brief, OTHER)
        for _ in range(6):
            await asyncio.sleep(brief.lease_s / 4)
            await brief.renew([turn.lease, other.lease])
        for key in (KEY, OTHER):
            with pytest.raises(ConversationBusy):
                await begin(brief, key)
        await brief.renew([])

    async def test_a_finished_lease_is_not_brought_back_by_renewing(
        self, store: ConversationStore
    ) -> None:
        turn = await begun(store)
        await store.commit(turn.lease, exchange(1))
        await store.renew([turn.lease])
        await begun(store)

    async def test_of_many_who_begin_at_once_one_does(self, store: ConversationStore) -> None:
        for number in range(10):
            results = await asyncio.gather(
                *(begin(store) for _ in range(20)), return_exceptions=True
            )
            won = [entry for entry in results if isinstance(entry, Leased)]
            lost = [entry for entry in results if isinstance(entry, ConversationBusy)]
            assert (len(won), len(lost)) == (1, 19)
            await store.commit(won[0].lease, exchange(number))
        assert await said(store) == expected_ids(range(10))

    async def test_an_unknown_conversation_is_made_or_refused(
        self, store: ConversationStore
    ) -> None:
        with pytest.raises(NotFound):
            await begin(store, create=False)
        made = await begun(store, identity=ADA)
        assert made.conversation.owner == ADA
        await store.release(made.lease)
        assert (await begun(store, create=False, identity=ADA)).conversation == made.conversation

    async def test_a_stranger_gets_no_lease_and_is_in_nobodys_way(
        self, store: ConversationStore
    ) -> None:
        await store.create(KEY, owner=ADA, subject=None)
        for identity in (None, "email:eve@example.com", ""):
            with pytest.raises(NotOwner):
                await begin(store, identity=identity)
        turn = await begun(store, identity=ADA)
        with pytest.raises(NotOwner):
            await begin(store, identity="email:eve@example.com")
        await store.commit(turn.lease, exchange(1))

    async def test_what_has_no_owner_is_not_for_those_with_an_identity(
        self, store: ConversationStore
    ) -> None:
        await store.create(KEY, owner=None, subject=None)
        for identity in (ADA, ""):
            with pytest.raises(NotOwner):
                await begin(store, identity=identity)
        assert (await begun(store, identity=None)).conversation.owner is None

    @pytest.mark.parametrize("again", [False, True], ids=["deleted", "made anew"])
    async def test_a_deleted_conversation_does_not_come_back_with_a_turn(
        self, store: ConversationStore, again: bool
    ) -> None:
        turn = await begun(store)
        await store.delete(KEY)
        heir = await begun(store) if again else None
        with pytest.raises((NotFound, Conflict)):
            await store.commit(turn.lease, exchange(1))
        await store.renew([turn.lease])
        await store.release(turn.lease)
        if heir is None:
            with pytest.raises(NotFound):
                await store.load(KEY, messages=1)
        else:
            with pytest.raises(ConversationBusy):
                await begin(store)
            await store.commit(heir.lease, exchange(2))
            assert await said(store) == ["q2", "a2"]

    async def test_an_expired_conversation_is_begun_anew(
        self, store: ConversationStore, clock: Clock
    ) -> None:
        first = await begun(store)
        await store.commit(first.lease, exchange(1))
        clock.now += 91 * 86_400
        with pytest.raises(NotFound):
            await begin(store, create=False)
        second = await begun(store)
        assert second.conversation.messages == ()
        assert second.conversation.public_id != first.conversation.public_id

    async def test_tool_calls_come_back_with_their_results(self, store: ConversationStore) -> None:
        calls = (
            KeptCall("c1", "lookup", '{"q": "Größe"}', '{"found": 1}'),
            KeptCall("c2", "ask", "{}"),
        )
        answer = Message("a1", "assistant", "", 2.0, "partial", calls)
        turn = await begun(store)
        await store.commit(turn.lease, [Message("q1", "user", "?", 1.0), answer])
        assert (await store.load(KEY, messages=1)).messages == (answer,)
        assert (await store.history(KEY, limit=9)).messages[1] == answer


class TestRecords:
    async def test_the_same_request_gets_the_recorded_reply(self, store: ConversationStore) -> None:
        turn = await begun(store, once=ONCE)
        await store.commit(turn.lease, exchange(1), record=b"\x00reply\xff")
        for _ in range(2):
            again = await begin(store, once=ONCE)
            assert isinstance(again, Recorded)
            assert again.record == b"\x00reply\xff"
            assert again.conversation == await store.load(KEY, messages=100)
        await begun(store)  # a recorded reply holds no lease

    async def test_another_request_with_the_key_is_refused(self, store: ConversationStore) -> None:
        turn = await begun(store, once=ONCE)
        for key in (KEY, ELSEWHERE):
            with pytest.raises(KeyReused):
                await begin(store, key, once=SAME_KEY)
        await store.commit(turn.lease, exchange(1), record=b"reply")
        for key in (KEY, ELSEWHERE):
            with pytest.raises(KeyReused):
                await begin(store, key, once=SAME_KEY)
        await begun(store, once=OTHER_KEY)

    async def test_the_same_request_is_busy_while_the_first_runs(
        self, store: ConversationStore
    ) -> None:
        await begun(store, once=ONCE)
        with pytest.raises(ConversationBusy):
            await begin(store, once=ONCE)

    async def test_a_turn_that_left_nothing_frees_its_key(self, store: ConversationStore) -> None:
        turn = await begun(store, once=ONCE)
        await store.release(turn.lease)
        again = await begun(store, once=SAME_KEY)
        await store.release(turn.lease)
        with pytest.raises(KeyReused):
            await begin(store, ELSEWHERE, once=ONCE)
        await store.commit(again.lease, exchange(1), record=b"second")
        found = await begin(store, once=SAME_KEY)
        assert isinstance(found, Recorded)
        assert found.record == b"second"

    async def test_a_dead_holders_key_is_free_after_a_while(self, brief: ConversationStore) -> None:
        zombie = await begun(brief, once=ONCE)
        await asyncio.sleep(brief.lease_s * 1.5)
        heir = await begun(brief, once=ONCE)
        with pytest.raises(Conflict):
            await brief.commit(zombie.lease, exchange(1), record=b"zombie")
        await brief.release(zombie.lease)
        await brief.commit(heir.lease, exchange(2), record=b"heir")
        found = await begin(brief, once=ONCE)
        assert isinstance(found, Recorded)
        assert found.record == b"heir"

    @pytest.mark.parametrize("record", [None, b"x" * (RECORD_BYTES + 1)], ids=["none", "too long"])
    async def test_a_reply_that_was_not_recorded_is_not_run_again(
        self, store: ConversationStore, record: bytes | None
    ) -> None:
        turn = await begun(store, once=ONCE)
        await store.commit(turn.lease, exchange(1), record=record)
        with pytest.raises(KeyReused):
            await begin(store, once=ONCE)

    async def test_the_longest_record_is_kept(self, store: ConversationStore) -> None:
        turn = await begun(store, once=ONCE)
        await store.commit(turn.lease, exchange(1), record=b"x" * RECORD_BYTES)
        assert isinstance(await begin(store, once=ONCE), Recorded)

    @pytest.mark.parametrize("again", [False, True], ids=["deleted", "made anew"])
    async def test_a_record_goes_with_its_conversation(
        self, store: ConversationStore, again: bool
    ) -> None:
        turn = await begun(store, once=ONCE)
        await store.commit(turn.lease, exchange(1), record=b"reply")
        await store.delete(KEY)
        if again:
            await store.commit((await begun(store)).lease, exchange(2))
        else:
            with pytest.raises(NotFound):
                await begin(store, once=ONCE, create=False)
        assert isinstance(await begin(store, once=ONCE), Leased)

    async def test_any_order_of_steps_leaves_one_lease_and_whole_exchanges(
        self, store: ConversationStore
    ) -> None:
        for number, order in enumerate(itertools.permutations(("commit", "release", "renew"))):
            turn = await begun(store)
            steps: dict[str, Coroutine[None, None, None]] = {
                "commit": store.commit(turn.lease, exchange(number)),
                "release": store.release(turn.lease),
                "renew": store.renew([turn.lease]),
            }
            for step in order:
                await steps[step]
        assert await said(store) == expected_ids(range(6))


class TestClocks:
    @pytest.mark.parametrize(
        "jump", [3600.0, -3600.0, -10 * 365 * 86_400.0], ids=["+1 h", "-1 h", "-10 y"]
    )
    async def test_a_clock_that_jumps_frees_no_lease_and_keeps_none(
        self, brief: ConversationStore, clock: Clock, jump: float
    ) -> None:
        clock.now = 1_795_000_000.0
        turn = await begun(brief, once=ONCE)
        clock.now += jump
        with pytest.raises(ConversationBusy):
            await begin(brief)
        await brief.renew([turn.lease])
        await brief.commit(turn.lease, exchange(1))
        await begun(brief)
        await asyncio.sleep(brief.lease_s * 1.5)
        await brief.commit((await begun(brief)).lease, exchange(2))
        assert await said(brief) == expected_ids(range(1, 3))

    async def test_a_lease_from_before_the_machine_started_anew_holds_nothing(
        self, path: Path
    ) -> None:
        async with opened(path) as store:
            await begun(store)
            # The monotonic clock has begun again at zero since.
            sql(path, "UPDATE conversations SET leased_until = leased_until + 1000000")
            await begun(store)
