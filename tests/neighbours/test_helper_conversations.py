import json
from typing import Final

import pytest

from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.errors import BadRequest, Conflict, GatewayError, HttpError, NotFound, NotOwner
from gateway.messages import ConversationKey, Headers, Message, Principal, RequestHead
from gateway.neighbours.helper_conversations import (
    PREVIEW_CHARACTERS,
    HelperConversation,
    HelperList,
    HelperResume,
    HelperStart,
    HelperUnread,
    HelperUnserved,
    HelperUpdate,
    random_slug,
)
from gateway.neighbours.thread import MESSAGES
from tests.neighbours.desk import NOW, NOW_TEXT, Desk, ask, long, said, told
from tests.stores.rig import add

ADA: Final = Principal("acme", "session-token", "support", "email:ada@example.com")
EVE: Final = Principal("acme", "session-token", "support", "email:eve@example.com")
ELSEWHERE: Final = Principal("globex", "session-token", "support", "email:ada@example.com")
TOKENS: Final = SessionTokens({"acme": HelperTenant((b"acme" * 8,), "support")})


class Helper(Desk):
    """Helper's endpoints over one store."""

    def __init__(self) -> None:
        super().__init__()
        self.start = HelperStart(TOKENS, self.store, new_slug=lambda: "slug1")
        self.show = HelperConversation(TOKENS, self.store)
        self.update = HelperUpdate(TOKENS, self.store)
        self.list = HelperList(TOKENS, self.store)
        self.unread = HelperUnread(TOKENS, self.store)

    async def begin(
        self, slug: str, *, owner: Principal = ADA, subject: str | None = None, turns: int = 0
    ) -> ConversationKey:
        self.now += 1
        key = ConversationKey(owner.tenant, "helper", slug)
        await self.store.create(key, owner=owner.identity, subject=subject)
        for number in range(turns):
            await add(self.store, key, said(number, at=self.now))
        return key

    async def count_unread(self, principal: Principal = ADA) -> object:
        return told(await ask(self.unread, principal))["count"]


@pytest.fixture
def helper() -> Helper:
    return Helper()


class TestStart:
    async def test_a_conversation_belongs_to_the_visitor(self, helper: Helper) -> None:
        reply = await ask(helper.start, ADA, {"isPrompt": False, "subject": "Shipping"})
        assert told(reply) == {"conversationSlug": "slug1"}
        key = ConversationKey("acme", "helper", "slug1")
        made = await helper.store.load(key, messages=1)
        assert (made.owner, made.subject) == (ADA.identity, "Shipping")

    @pytest.mark.parametrize("body", [{}, {"subject": None}, {"isPrompt": "?"}])
    async def test_it_needs_no_subject(self, helper: Helper, body: object) -> None:
        told(await ask(helper.start, ADA, body))
        assert told(await ask(helper.show, ADA, slug="slug1"))["subject"] is None

    @pytest.mark.parametrize(
        "body", [[], {"subject": 7}, {"subject": "x" * 1001}, {"subject": "\0"}]
    )
    async def test_one_with_a_bad_subject_is_not_made(self, helper: Helper, body: object) -> None:
        with pytest.raises(BadRequest):
            await ask(helper.start, ADA, body)
        assert (await helper.store.scan(limit=1)).conversations == ()

    async def test_a_slug_that_is_taken_is_not_given_again(self, helper: Helper) -> None:
        await ask(helper.start, ADA, {})
        with pytest.raises(Conflict):
            await ask(helper.start, EVE, {})

    def test_slugs_are_random(self) -> None:
        slugs = {random_slug() for _ in range(1000)}
        assert len(slugs) == 1000
        assert all(len(slug) == 20 and slug.isascii() and slug.isalnum() for slug in slugs)
        assert all(slug == slug.lower() for slug in slugs)
        assert len({character for slug in slugs for character in slug}) == 36


class TestShow:
    async def test_a_conversation_has_every_member_that_the_client_reads(
        self, helper: Helper
    ) -> None:
        key = await helper.begin("s", subject="Größe")
        at = NOW + 10
        await add(
            helper.store,
            key,
            [
                Message("q1", "user", "Hi 😀", NOW),
                Message("sys", "system", "never shown", NOW),
                Message("a1", "assistant", "On its", at, "partial"),
            ],
        )
        nothing: dict[str, object] = {
            "staffName": None,
            "reactionType": None,
            "reactionFeedback": None,
            "reactionCreatedAt": None,
            "publicAttachments": [],
            "privateAttachments": [],
        }
        assert told(await ask(helper.show, ADA, slug="s")) == {
            "slug": "s",
            "subject": "Größe",
            "isEscalated": False,
            "messages": [
                {"id": "q1", "role": "user", "content": "Hi 😀", "createdAt": NOW_TEXT, **nothing},
                {
                    "id": "a1",
                    "role": "assistant",
                    "content": "On its",
                    "createdAt": "2026-09-21T14:13:30.250Z",
                    **nothing,
                },
            ],
            "experimental_guideSessions": [],
        }

    async def test_a_long_one_is_cut_to_its_newest_messages(self, helper: Helper) -> None:
        await helper.begin("s", turns=MESSAGES // 2 + 1)
        messages = told(await ask(helper.show, ADA, slug="s"))["messages"]
        assert isinstance(messages, list)
        assert [len(messages), messages[0]["id"]] == [MESSAGES, "q1"]

    async def test_one_with_long_messages_is_cut_sooner(self, helper: Helper) -> None:
        key = await helper.begin("s")
        await add(helper.store, key, long(20))
        messages = told(await ask(helper.show, ADA, slug="s"))["messages"]
        assert isinstance(messages, list)
        assert [len(messages), messages[0]["id"]] == [10, "m10"]

    @pytest.mark.parametrize(
        ("query", "left"),
        [
            ("", 0),
            ("markRead=true", 0),
            ("markRead=false", 1),
            ("markRead=0", 0),
            ("other=false", 0),
        ],
    )
    async def test_showing_it_marks_it_read_unless_told_otherwise(
        self, helper: Helper, query: str, left: int
    ) -> None:
        await helper.begin("s", turns=1)
        assert await helper.count_unread() == 1
        await ask(helper.show, ADA, query=query, slug="s")
        assert await helper.count_unread() == left

    async def test_what_came_after_it_was_shown_is_unread(self, helper: Helper) -> None:
        key = await helper.begin("s", turns=1)
        await ask(helper.show, ADA, slug="s")
        await add(helper.store, key, said(2))
        assert await helper.count_unread() == 1


class TestUpdate:
    async def test_it_marks_the_conversation_read(self, helper: Helper) -> None:
        await helper.begin("s", turns=2)
        assert told(await ask(helper.update, ADA, {"markRead": True}, slug="s")) == {
            "success": True
        }
        assert await helper.count_unread() == 0

    @pytest.mark.parametrize(
        "body", [{}, [], {"markRead": False}, {"markRead": 1}, {"markRead": "true"}, None]
    )
    async def test_nothing_else_can_be_updated(self, helper: Helper, body: object) -> None:
        await helper.begin("s", turns=1)
        with pytest.raises(BadRequest):
            await ask(helper.update, ADA, body, slug="s")
        assert await helper.count_unread() == 1

    async def test_it_takes_json_only(self, helper: Helper) -> None:
        with pytest.raises(HttpError):
            await ask(helper.update, ADA, {"markRead": True}, media_type="text/plain", slug="s")


class TestForeign:
    @pytest.mark.parametrize(
        ("principal", "slug", "error"),
        [
            (EVE, "s", NotOwner),
            (ELSEWHERE, "s", NotFound),
            (ADA, "S", NotFound),
            (ADA, "s/..", NotFound),
            (ADA, "x" * 129, NotFound),
        ],
    )
    async def test_nobody_else_can_read_or_mark_it(
        self, helper: Helper, principal: Principal, slug: str, error: type[GatewayError]
    ) -> None:
        await helper.begin("s", turns=1)
        with pytest.raises(error):
            await ask(helper.show, principal, slug=slug)
        with pytest.raises(error):
            await ask(helper.update, principal, {"markRead": True}, slug=slug)
        assert await helper.count_unread() == 1

    async def test_what_is_nobodys_is_shown_to_nobody(self, helper: Helper) -> None:
        await helper.begin("s", owner=Principal("acme", "key", "support"))
        with pytest.raises(NotOwner):
            await ask(helper.show, ADA, slug="s")

    async def test_nobody_else_finds_it_listed(self, helper: Helper) -> None:
        await helper.begin("s", turns=1)
        for principal in (EVE, ELSEWHERE):
            assert told(await ask(helper.list, principal))["conversations"] == []
            assert await helper.count_unread(principal) == 0


class TestList:
    async def test_it_has_every_member_that_the_client_reads(self, helper: Helper) -> None:
        helper.now = NOW - 1
        key = await helper.begin("s1", subject="Shipping")
        await add(helper.store, key, said(1, at=NOW + 5, text="x" * PREVIEW_CHARACTERS))
        helper.now = NOW - 2
        await helper.begin("s2")
        assert told(await ask(helper.list, ADA)) == {
            "conversations": [
                {
                    "slug": "s2",
                    "subject": "(no subject)",
                    "createdAt": "2026-09-21T14:13:19.250Z",
                    "latestMessage": None,
                    "latestMessageAt": None,
                    "messageCount": 0,
                    "isEscalated": False,
                    "isUnread": False,
                },
                {
                    "slug": "s1",
                    "subject": "Shipping",
                    "createdAt": NOW_TEXT,
                    "latestMessage": "x" * PREVIEW_CHARACTERS,
                    "latestMessageAt": "2026-09-21T14:13:25.750Z",
                    "messageCount": 2,
                    "isEscalated": False,
                    "isUnread": True,
                },
            ],
            "nextCursor": None,
        }

    @pytest.mark.parametrize(
        ("query", "size"), [("", 20), ("limit=1", 1), ("limit=100", 100), ("limit=", 20)]
    )
    async def test_pages_follow_each_other(self, helper: Helper, query: str, size: int) -> None:
        for number in range(45):
            await helper.begin(str(number))
        found: list[str] = []
        cursor = "&cursor="
        for _ in range(-(-45 // size)):
            page = told(await ask(helper.list, ADA, query=f"{query}{cursor}"))
            assert isinstance(page["conversations"], list)
            assert len(page["conversations"]) <= size
            found += [entry["slug"] for entry in page["conversations"]]
            cursor = f"&cursor={page['nextCursor']}"
        assert found == [str(number) for number in reversed(range(45))]
        assert page["nextCursor"] is None

    @pytest.mark.parametrize(
        "query",
        [
            "limit=0",
            "limit=101",
            "limit=x",
            "limit=1&limit=2",
            "cursor=x",
            "limit=%31%30%30%30",
        ],
    )
    async def test_a_bad_query_is_refused(self, helper: Helper, query: str) -> None:
        with pytest.raises(BadRequest):
            await ask(helper.list, ADA, query=query)


async def admit_nobody(tenant: str) -> None:
    raise AssertionError(tenant)


async def test_there_is_never_a_stream_to_resume() -> None:
    head = RequestHead("GET", "/api/chat/abc/stream", "", Headers(), {"id": "abc"})
    reply = await HelperResume().answer(head, b"", admit_nobody)
    assert (reply.status, reply.body, reply.refused) == (204, b"", None)


async def test_what_is_not_served_is_said_so() -> None:
    head = RequestHead("POST", "/api/chat/contact", "", Headers())
    reply = await HelperUnserved().answer(head, b"", admit_nobody)
    assert (reply.status, json.loads(reply.body)) == (404, {"error": "Not supported"})
    assert reply.refused == "not_found"
