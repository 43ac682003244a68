import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import BadRequest, NotFound
from gateway.messages import (
    NO_TERMS,
    Conversation,
    ConversationKey,
    ConversationPage,
    ConversationStatus,
    Message,
    Terms,
)
from gateway.ports.conversations import ConversationStore
from tests.stores.rig import add, make, opened
from tests.stores.samples import KEY, OTHER, Clock, exchange, expected_ids, ids

DAY = 86_400.0
ADA = "email:ada@example.com"
BEGAN = 1_790_000_000.0
ID = "{}123456789abcdef0123456789abcdef"
TERMS = Terms(
    agent="support",
    variables={"name": "Größe 😀", "empty": ""},
    expires_at=1_790_000_000.5,
    details={"agent_id": "agent_1", "metadata": {"a": [1, 2.5, None, True]}, "user": "u"},
)


def key(name: object, *, tenant: str = "acme", dialect: str = "helper") -> ConversationKey:
    return ConversationKey(tenant, dialect, str(name))


async def start(
    store: ConversationStore, clock: Clock, count: int, *, owner: str | None = ADA
) -> list[str]:
    """As many conversations, a second apart; their ids, the newest first."""
    for number in range(count):
        clock.now += 1
        await store.create(key(number), owner=owner, subject=None)
    return [str(number) for number in reversed(range(count))]


async def recent(
    store: ConversationStore, *, limit: int = 100, cursor: str | None = None, messages: int = 0
) -> ConversationPage:
    return await store.recent(
        "acme", "helper", owner=ADA, limit=limit, cursor=cursor, messages=messages
    )


def names(page: ConversationPage) -> list[str]:
    return [entry.key.id for entry in page.conversations]


class TestTerms:
    async def test_what_a_conversation_was_started_with_comes_back(
        self, store: ConversationStore
    ) -> None:
        made = await store.create(KEY, owner=None, subject=None, terms=TERMS)
        assert made.terms == TERMS
        assert await make(store) == made
        await add(store, KEY, exchange(1))
        assert (await store.load(KEY, messages=10)).terms == TERMS
        assert (await make(store, OTHER)).terms == NO_TERMS

    @pytest.mark.parametrize(
        ("status", "expires_at", "shown"),
        [
            ("open", None, "open"),
            ("open", 9.5, "open"),
            ("open", 9.0, "completed"),
            ("failed", 9.0, "failed"),
            ("completed", None, "completed"),
        ],
    )
    def test_an_open_conversation_completes_when_it_expires(
        self, status: ConversationStatus, expires_at: float | None, shown: str
    ) -> None:
        made = Conversation(KEY, "p", None, 1.0, terms=Terms(expires_at=expires_at))
        assert replace(made, status=status).status_at(9.0) == shown


class TestChanges:
    async def test_a_subject_and_a_status_are_changed_apart(self, store: ConversationStore) -> None:
        made = await store.create(KEY, owner=ADA, subject="first")
        assert await store.update(KEY) == made
        named = await store.update(KEY, subject="second")
        assert (named.subject, named.status) == ("second", "open")
        ended = await store.update(KEY, status="failed")
        assert (ended.subject, ended.status) == ("second", "failed")
        assert await store.load(KEY, messages=5) == ended

    async def test_an_ended_conversation_keeps_its_status(self, store: ConversationStore) -> None:
        await store.create(KEY, owner=None, subject=None)
        await store.update(KEY, status="failed")
        again = await store.update(KEY, subject="s", status="completed")
        assert (again.subject, again.status) == ("s", "failed")

    async def test_messages_are_unread_until_they_are_marked(
        self, store: ConversationStore
    ) -> None:
        async def state() -> tuple[int, int]:
            found = await store.load(KEY, messages=0)
            return found.length, found.read

        await make(store)
        await add(store, KEY, exchange(1))
        assert await state() == (2, 0)
        await store.mark_read(KEY, 2)
        await add(store, KEY, exchange(2))
        assert await state() == (4, 2)
        await store.mark_read(KEY, 1)
        assert await state() == (4, 2)
        await store.mark_read(KEY, 100)
        assert await state() == (4, 4)

    async def test_a_deleted_conversation_is_unknown_with_all_its_messages(
        self, store: ConversationStore
    ) -> None:
        for each in (KEY, OTHER):
            await make(store, each)
            await add(store, each, exchange(1))
        await store.delete(KEY)
        with pytest.raises(NotFound):
            await store.load(KEY, messages=1)
        again = await make(store)
        assert (again.messages, again.length) == ((), 0)
        assert len((await store.load(OTHER, messages=10)).messages) == 2

    async def test_reading_and_renaming_are_no_writing(
        self, store: ConversationStore, clock: Clock
    ) -> None:
        started = await start(store, clock, 3)
        clock.now += 1
        await store.mark_read(key(0), 1)
        renamed = await store.update(key(0), subject="s")
        assert renamed.updated_at == renamed.created_at
        assert names(await recent(store)) == started

    @pytest.mark.parametrize(
        "foreign", [key("c", tenant="globex"), key("c", dialect="widget"), key("d")]
    )
    async def test_no_change_reaches_a_foreign_conversation(
        self, store: ConversationStore, foreign: ConversationKey
    ) -> None:
        mine = await store.create(key("c"), owner=ADA, subject="mine")
        for change in (
            store.update(foreign, subject="x"),
            store.mark_read(foreign, 1),
            store.delete(foreign),
            store.history(foreign, limit=1),
            store.find(foreign.tenant, foreign.dialect, "0" * 32, messages=1),
        ):
            with pytest.raises(NotFound):
                await change
        assert await store.load(key("c"), messages=1) == mine


class TestRecent:
    async def test_who_was_written_to_last_comes_first(
        self, store: ConversationStore, clock: Clock
    ) -> None:
        await start(store, clock, 4)
        clock.now += 1
        await add(store, key(1), exchange(1))
        page = await recent(store)
        assert (names(page), page.cursor) == (["1", "3", "2", "0"], None)

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
    async def test_pages_have_each_conversation_once(
        self, store: ConversationStore, clock: Clock, limit: int
    ) -> None:
        expected = await start(store, clock, 7)
        found: list[str] = []
        cursor = None
        for _ in range(-(-7 // limit)):
            page = await recent(store, limit=limit, cursor=cursor)
            assert len(page.conversations) <= limit
            found += names(page)
            cursor = page.cursor
        assert (found, cursor) == (expected, None)

    async def test_conversations_of_one_moment_are_all_found(
        self, store: ConversationStore
    ) -> None:
        for number in range(9):
            await store.create(key(number), owner=ADA, subject=None)
        found: list[str] = []
        cursor = None
        for _ in range(5):
            page = await recent(store, limit=2, cursor=cursor)
            found += names(page)
            cursor = page.cursor
        assert (sorted(found), cursor) == ([str(number) for number in range(9)], None)

    async def test_pages_stay_whole_while_others_are_written_to(
        self, store: ConversationStore, clock: Clock
    ) -> None:
        await start(store, clock, 6)
        first = await recent(store, limit=2)
        clock.now += 1
        await add(store, key(5), exchange(1))
        await add(store, key(0), exchange(2))
        await store.create(key("new"), owner=ADA, subject=None)
        rest = await recent(store, cursor=first.cursor)
        assert (names(first), names(rest)) == (["5", "4"], ["3", "2", "1"])

    async def test_a_page_has_the_newest_messages(
        self, store: ConversationStore, clock: Clock
    ) -> None:
        await start(store, clock, 3)
        for number in range(5):
            await add(store, key(1), exchange(number))
        for count, expected in ((0, []), (-1, []), (1, ["a4"]), (3, ["a3", "q4", "a4"])):
            page = await recent(store, messages=count)
            said = {entry.key.id: ids(entry.messages) for entry in page.conversations}
            assert said == {"0": [], "1": expected, "2": []}
        whole = await store.load(key(1), messages=1)
        assert whole in (await recent(store, messages=1)).conversations

    async def test_nobody_sees_what_is_anothers(self, store: ConversationStore) -> None:
        for each, owner in (
            (key("mine"), ADA),
            (key("eves"), "email:eve@example.com"),
            (key("nobodys"), None),
            (key("elsewhere", tenant="globex"), ADA),
            (key("otherwise", dialect="widget"), ADA),
        ):
            await store.create(each, owner=owner, subject=None)
        assert names(await recent(store)) == ["mine"]
        nobodys = await store.recent("acme", "helper", owner=None, limit=9)
        assert names(nobodys) == ["nobodys"]
        assert await store.count("acme", "helper", owner=ADA) == 1
        assert await store.count("acme", "hyponema", owner=ADA) == 0

    async def test_conversations_are_counted(self, store: ConversationStore, clock: Clock) -> None:
        await start(store, clock, 5)
        for number in (1, 3):
            await add(store, key(number), exchange(number))
        await store.mark_read(key(3), 1)
        assert await store.count("acme", "helper", owner=ADA) == 5
        assert await store.count("acme", "helper", owner=ADA, unread=True) == 2
        await store.mark_read(key(3), 2)
        assert await store.count("acme", "helper", owner=ADA, unread=True) == 1

    @pytest.mark.parametrize(
        "cursor",
        ["", "x", "1", "1:2:3", "1.5:", ":1", "nan:1", "1e9:1", "-1.0:1", "1.0:" + "9" * 19],
    )
    async def test_a_made_up_cursor_is_refused(self, store: ConversationStore, cursor: str) -> None:
        with pytest.raises(BadRequest):
            await recent(store, cursor=cursor)
        with pytest.raises(BadRequest):
            await store.scan(limit=1, cursor=cursor)


class TestFinding:
    async def test_a_public_id_finds_its_conversation(self, store: ConversationStore) -> None:
        made = await store.create(KEY, owner=None, subject="s", terms=TERMS)
        assert await store.find("acme", "widget", made.public_id, messages=5) == made
        await add(store, KEY, exchange(1))
        found = await store.find("acme", "widget", made.public_id, messages=1)
        assert found == await store.load(KEY, messages=1)
        for tenant, dialect in (("globex", "widget"), ("acme", "helper")):
            with pytest.raises(NotFound):
                await store.find(tenant, dialect, made.public_id, messages=1)

    @pytest.mark.parametrize("limit", [1, 3, 19, 20, 100])
    async def test_a_history_comes_in_pages_from_its_beginning(
        self, store: ConversationStore, limit: int
    ) -> None:
        await make(store)
        for number in range(10):
            await add(store, KEY, exchange(number))
        found: list[str] = []
        after: int | None = 0
        for _ in range(-(-20 // limit)):
            assert after is not None
            page = await store.history(KEY, limit=limit, after=after)
            found += ids(page.messages)
            after = page.after
        assert (found, after) == (expected_ids(range(10)), None)

    async def test_a_history_may_be_empty(self, store: ConversationStore) -> None:
        await make(store)
        page = await store.history(KEY, limit=5)
        assert (page.messages, page.after) == ((), None)
        with pytest.raises(NotFound):
            await store.history(OTHER, limit=5)

    async def test_a_scan_finds_everything(self, store: ConversationStore, clock: Clock) -> None:
        keys = {
            key(number, tenant=tenant, dialect=dialect)
            for tenant in ("acme", "globex")
            for dialect in ("helper", "widget")
            for number in range(3)
        }
        for each in keys:
            await store.create(each, owner=None, subject=None)
        page = await store.scan(limit=5)
        found = list(page.conversations)
        clock.now += 1
        for entry in page.conversations[:2]:
            await add(store, entry.key, exchange(1))
        while page.cursor is not None:
            page = await store.scan(limit=5, cursor=page.cursor)
            found += page.conversations
        assert {entry.key for entry in found} == keys


class TestRetention:
    async def test_an_expired_conversation_is_unknown_before_it_is_swept(
        self, store: ConversationStore, clock: Clock
    ) -> None:
        old = await store.create(key("old"), owner=ADA, subject="old")
        await add(store, key("old"), exchange(1))
        clock.now += 1
        await store.create(key("young"), owner=ADA, subject=None)
        clock.now += 90 * DAY - 0.5
        for use in (
            store.load(key("old"), messages=1),
            store.find("acme", "helper", old.public_id, messages=1),
            store.history(key("old"), limit=1),
            add(store, key("old"), exchange(2)),
            store.update(key("old"), status="failed"),
            store.mark_read(key("old"), 1),
            store.delete(key("old")),
        ):
            with pytest.raises(NotFound):
                await use
        assert names(await recent(store)) == ["young"]
        assert names(await store.scan(limit=9)) == ["young"]
        assert await store.count("acme", "helper", owner=ADA) == 1

    @pytest.mark.parametrize("again", ["load", "create"])
    async def test_an_expired_key_is_free(
        self, store: ConversationStore, clock: Clock, again: str
    ) -> None:
        old = await store.create(KEY, owner=ADA, subject="old", terms=TERMS)
        await add(store, KEY, exchange(1))
        clock.now += 90 * DAY + 1
        if again == "load":
            new = await make(store)
        else:
            new = await store.create(KEY, owner=None, subject=None)
        assert new.public_id != old.public_id
        assert (new.owner, new.length, new.terms) == (None, 0, NO_TERMS)
        assert await store.load(KEY, messages=10) == new


class TestAnEarlierFile:
    # The file was written by the first release, which knew neither lists nor terms.
    async def test_it_is_read_listed_and_written_to(self, path: Path, clock: Clock) -> None:
        shutil.copyfile(Path(__file__).parent / "files" / "schema_1.db", path)
        clock.now = BEGAN + 60
        async with opened(path, clock=clock) as store:
            helper = await store.load(key("slug1"), messages=10)
            assert (helper.owner, helper.subject, helper.public_id) == (
                ADA,
                "Shipping",
                ID.format(0),
            )
            assert (helper.created_at, helper.updated_at) == (BEGAN, BEGAN + 1)
            assert (helper.status, helper.terms) == ("open", NO_TERMS)
            assert (helper.length, helper.read) == (2, 2)
            assert helper.messages == (
                Message("q1", "user", "Where is it?", BEGAN + 1),
                Message("a1", "assistant", "On its", BEGAN + 1.5, "partial"),
            )
            assert (await recent(store, messages=10)).conversations == (helper,)
            await add(store, key("slug1"), exchange(3))
            assert await store.count("acme", "helper", owner=ADA, unread=True) == 1
            found = (await store.scan(limit=10)).conversations
            assert [entry.key.id for entry in found] == ["session-1", "empty", "slug1"]
            assert [entry.public_id for entry in found] == [ID.format(n) for n in (1, 2, 0)]
            widget = await store.history(found[0].key, limit=10)
            assert [message.text for message in widget.messages] == ["Hallo Größe 😀", "Hallo."]
        async with opened(path, clock=clock) as again:
            assert len((await again.history(key("slug1"), limit=10)).messages) == 4
