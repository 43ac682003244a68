import json
from typing import Final

import pytest

from gateway.access.admin_keys import AdminKeys, AdminTenant
from gateway.messages import ConversationKey, Headers, Message, Principal, Reply, RequestHead
from gateway.neighbours.thread import MESSAGES
from gateway.neighbours.widget import (
    PREVIEW_CHARACTERS,
    WidgetAdminOff,
    WidgetHealth,
    WidgetList,
    WidgetThread,
)
from tests.neighbours.desk import NOW, Desk, ask, long, said, told
from tests.stores.rig import add, make

ACME: Final = Principal("acme", "admin-key", "default")
GLOBEX: Final = Principal("globex", "admin-key", "default")
KEYS: Final = AdminKeys({"acme": AdminTenant("k" * 24, "default")})


class Widget(Desk):
    """The admin routes over one store."""

    def __init__(self) -> None:
        super().__init__()
        self.list = WidgetList(KEYS, self.store)
        self.thread = WidgetThread(KEYS, self.store)

    async def begin(self, session: str, *, turns: int = 0, tenant: str = "acme") -> str:
        """The conversation's public id."""
        self.now += 1
        key = ConversationKey(tenant, "widget", session)
        made = await make(self.store, key)
        for number in range(turns):
            await add(self.store, key, said(number, at=self.now))
        return made.public_id


@pytest.fixture
def widget() -> Widget:
    return Widget()


async def nobody(tenant: str) -> None:
    raise AssertionError(tenant)


def refused(reply: Reply) -> tuple[int, object, object]:
    return reply.status, json.loads(reply.body), reply.refused


async def test_the_widgets_health_is_the_vendors_answer() -> None:
    head = RequestHead("GET", "/health", "", Headers())
    reply = await WidgetHealth().answer(head, b"", nobody)
    assert told(reply) == {"status": "ok"}


async def test_without_a_key_the_admin_routes_say_so() -> None:
    head = RequestHead("GET", "/v1/admin/conversations", "", Headers())
    reply = await WidgetAdminOff().answer(head, b"", nobody)
    text = "ADMIN_API_KEY is not configured on this deployment"
    assert refused(reply) == (503, {"error": text}, "not_found")
    assert dict(reply.headers)["retry-after"] == "3600"


async def test_a_list_is_the_vendors(widget: Widget) -> None:
    widget.now = NOW - 1
    first = await widget.begin("session-1")
    second = await widget.begin("session-2", turns=1)
    await widget.begin("theirs", tenant="globex")
    assert told(await ask(widget.list, ACME)) == {
        "conversations": [
            {
                "_id": second,
                "_creationTime": 1_790_000_001_250.0,
                "sessionId": "session-2",
                "createdAt": 1_790_000_001_250,
                "updatedAt": 1_790_000_001_250,
                "lastMessage": "text 0.",
            },
            {
                "_id": first,
                "_creationTime": 1_790_000_000_250.0,
                "sessionId": "session-1",
                "createdAt": 1_790_000_000_250,
                "updatedAt": 1_790_000_000_250,
                "lastMessage": "",
            },
        ],
        "total": 2,
    }


async def test_a_last_message_is_cut(widget: Widget) -> None:
    await widget.begin("s")
    key = ConversationKey("acme", "widget", "s")
    await add(widget.store, key, [Message("m", "user", "😀" * 501, NOW)])
    listed = told(await ask(widget.list, ACME))["conversations"]
    assert isinstance(listed, list)
    assert listed[0]["lastMessage"] == "😀" * PREVIEW_CHARACTERS


@pytest.mark.parametrize(
    ("query", "size"),
    [("", 100), ("limit=1", 1), ("limit=200", 200), ("limit=007", 7), ("other=x", 100)],
)
async def test_a_list_has_as_many_as_asked_for_and_the_total(
    widget: Widget, query: str, size: int
) -> None:
    for number in range(205):
        await widget.begin(str(number))
    page = told(await ask(widget.list, ACME, query=query))
    assert isinstance(page["conversations"], list)
    assert (len(page["conversations"]), page["total"]) == (size, 205)


@pytest.mark.parametrize(
    "limit", ["0", "201", "-1", "1.5", "", "x", "1&limit=2", "00", "1000", "١"]
)
async def test_a_bad_limit_is_refused(widget: Widget, limit: str) -> None:
    reply = await ask(widget.list, ACME, query=f"limit={limit}")
    assert refused(reply) == (400, {"error": "Invalid query parameters"}, "bad_request")


async def test_a_thread_is_the_vendors(widget: Widget) -> None:
    widget.now = NOW - 1
    public_id = await widget.begin("session-1", turns=1)
    listed = told(await ask(widget.list, ACME))["conversations"]
    assert isinstance(listed, list)
    assert told(await ask(widget.thread, ACME, id=public_id)) == {
        "conversation": listed[0],
        "messages": [
            {"_id": "q0", "role": "user", "content": "text 0?", "createdAt": 1_790_000_000_250},
            {
                "_id": "a0",
                "role": "assistant",
                "content": "text 0.",
                "createdAt": 1_790_000_000_750,
            },
        ],
    }


async def test_a_long_thread_is_cut_to_its_newest_messages(widget: Widget) -> None:
    public_id = await widget.begin("s", turns=MESSAGES // 2 + 1)
    messages = told(await ask(widget.thread, ACME, id=public_id))["messages"]
    assert isinstance(messages, list)
    assert (len(messages), messages[0]["_id"]) == (MESSAGES, "q1")


async def test_a_thread_with_long_messages_is_cut_sooner(widget: Widget) -> None:
    public_id = await widget.begin("s")
    await add(widget.store, ConversationKey("acme", "widget", "s"), long(20))
    messages = told(await ask(widget.thread, ACME, id=public_id))["messages"]
    assert isinstance(messages, list)
    assert (len(messages), messages[0]["_id"]) == (10, "m10")


async def test_a_foreign_thread_is_an_unknown_one(widget: Widget) -> None:
    public_id = await widget.begin("session-1")
    unknown = (404, {"error": "Conversation not found"}, "not_found")
    assert refused(await ask(widget.thread, GLOBEX, id=public_id)) == unknown
    for name in ("session-1", "0" * 32, "x" * 128):
        assert refused(await ask(widget.thread, ACME, id=name)) == unknown
    long = await ask(widget.thread, ACME, id="x" * 129)
    assert refused(long) == (400, {"error": "Invalid conversationId"}, "bad_request")
