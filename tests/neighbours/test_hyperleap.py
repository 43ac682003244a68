from typing import Final

import pytest

from gateway.access.keys import KeyRing
from gateway.errors import BadRequest, HttpError, NotFound
from gateway.messages import Conversation, ConversationKey, MessagePage, Principal, Terms
from gateway.neighbours.hyperleap import (
    LISTED_MESSAGES,
    HyperleapConversation,
    HyperleapList,
    HyperleapPersona,
    HyperleapStart,
)
from gateway.neighbours.thread import MESSAGES
from gateway.stores.memory import MemoryStore
from tests.neighbours.desk import NOW, NOW_TEXT, Desk, ask, long, said, told
from tests.stores.rig import add, make

ACME: Final = Principal("acme", "site", "default")
FREE: Final = Principal("free", "site", "default")
RING: Final = KeyRing([], {})
MODELS: Final = {"default": "small-model", "support": "large-model"}
GENERAL: Final[dict[str, object]] = {"aiSystem": 1, "model": "gpt-4"}
DOOMED: Final = "doomed"
PERSONA: Final[dict[str, object]] = {"personaId": "p1"}
# Every property of ChatEntryResponse and of HyperleapChatMessageResponse, in their order.
ENTRY: Final[dict[str, object]] = {
    "conversationId": "id-1",
    "aiSystem": None,
    "model": "small-model",
    "personaId": None,
    "personaVersionId": None,
    "conversationStatus": None,
    "conversationName": None,
    "chatMessages": [],
    "chatMessagesCount": 0,
    "chatStarted": False,
    "areChatMessagesInBlob": False,
    "chatMessagesBlobUri": None,
    "configuration": None,
    "metadata": None,
    "externalUserId": None,
    "isActive": True,
    "isDeleted": False,
    "promptTokens": None,
    "completionTokens": None,
    "totalTokens": None,
}
MESSAGE: Final[dict[str, object]] = {
    "role": "user",
    "content": "text 1?",
    "toolCallId": None,
    "name": None,
    "messageId": "q1",
    "timestamp": NOW_TEXT,
    "feedbacks": None,
    "promptTokens": None,
    "completionTokens": None,
    "totalTokens": None,
    "conversationRunId": None,
}


class Hyperleap(Desk):
    """Hyperleap's endpoints over one store; the tenant `free` maps no personas."""

    def __init__(self) -> None:
        super().__init__()
        personas = {"acme": {"p1": "support"}, "free": {}}
        self.general = HyperleapStart(
            RING, self.store, MODELS, now=self.clock, new_id=lambda: "id-1"
        )
        self.persona = HyperleapPersona(
            RING, self.store, MODELS, personas, now=self.clock, new_id=lambda: "id-1"
        )
        self.show = HyperleapConversation(RING, self.store, MODELS, self.clock)
        self.list = HyperleapList(RING, self.store, MODELS, self.clock)

    async def terms(self) -> Terms:
        key = ConversationKey("acme", "hyperleap", "id-1")
        return (await self.store.load(key, messages=0)).terms

    async def begin(self, name: str, *, turns: int = 0, tenant: str = "acme") -> None:
        self.now += 1
        key = ConversationKey(tenant, "hyperleap", name)
        await make(self.store, key)
        for number in range(turns):
            await add(self.store, key, said(number + 1))


@pytest.fixture
def hyperleap() -> Hyperleap:
    return Hyperleap()


class TestStart:
    async def test_a_general_one_is_a_whole_entry(self, hyperleap: Hyperleap) -> None:
        made = told(await ask(hyperleap.general, ACME, GENERAL))
        assert made == ENTRY
        assert list(made) == list(ENTRY)
        assert await hyperleap.terms() == Terms()

    async def test_one_with_a_persona_is_its_agents(self, hyperleap: Hyperleap) -> None:
        body = {**PERSONA, "personaVersionId": "v1", "stream": True}
        made = told(await ask(hyperleap.persona, ACME, body))
        kept = {"personaId": "p1", "personaVersionId": "v1"}
        assert made == {**ENTRY, **kept, "model": "large-model"}
        assert await hyperleap.terms() == Terms(agent="support", details=kept)

    async def test_without_personas_every_one_is_the_keys(self, hyperleap: Hyperleap) -> None:
        made = told(await ask(hyperleap.persona, FREE, {"personaId": "whatever"}))
        assert made == {**ENTRY, "personaId": "whatever"}

    async def test_with_some_an_unknown_one_is_not_found(self, hyperleap: Hyperleap) -> None:
        with pytest.raises(NotFound):
            await ask(hyperleap.persona, ACME, {"personaId": "p2"})

    async def test_what_the_client_gave_is_kept_and_given_back(self, hyperleap: Hyperleap) -> None:
        given = {
            "externalUserId": "user 7",
            "metadata": {"a": [1, None, {"b": "ß"}]},
            "configuration": {"temperature": 0.5},
        }
        body = {**GENERAL, **given, "replacements": {"name": "Ada", "n": 7, "none": None, "l": [1]}}
        assert told(await ask(hyperleap.general, ACME, body)) == {**ENTRY, **given}
        shown = told(await ask(hyperleap.show, ACME, id="id-1"))
        assert shown == {**ENTRY, **given}
        assert (await hyperleap.terms()).variables == {
            "name": "Ada",
            "n": "7",
            "none": "",
            "l": "[1]",
        }

    @pytest.mark.parametrize(
        "changes",
        [
            {"aiSystem": None},
            {"aiSystem": 7},
            {"aiSystem": -1},
            {"aiSystem": True},
            {"aiSystem": "1"},
            {"model": None},
            {"model": ""},
            {"model": 7},
            {"systemMessage": 7},
            {"externalUserId": 7},
            {"externalUserId": "x" * 257},
            {"metadata": []},
            {"metadata": {"a": "x" * 16_384}},
            {"configuration": "x"},
            {"replacements": ["x"]},
            {"replacements": {str(n): n for n in range(101)}},
        ],
        ids=lambda changes: str(changes)[:40],
    )
    async def test_a_bad_member_is_refused(
        self, hyperleap: Hyperleap, changes: dict[str, object]
    ) -> None:
        with pytest.raises(BadRequest) as caught:
            await ask(hyperleap.general, ACME, {**GENERAL, **changes})
        assert [issue.field for issue in caught.value.issues] == list(changes)
        assert (await hyperleap.store.scan(limit=1)).conversations == ()

    @pytest.mark.parametrize(
        "changes", [{"personaId": None}, {"personaId": ""}, {"personaVersionId": 1}]
    )
    async def test_a_bad_persona_is_refused(
        self, hyperleap: Hyperleap, changes: dict[str, object]
    ) -> None:
        with pytest.raises(BadRequest):
            await ask(hyperleap.persona, ACME, {**PERSONA, **changes})

    @pytest.mark.parametrize(
        "media_type", ["application/json", "text/json", "application/*+json", "application/x+json"]
    )
    async def test_it_takes_json_of_every_name(self, hyperleap: Hyperleap, media_type: str) -> None:
        told(await ask(hyperleap.general, ACME, GENERAL, media_type=media_type))
        with pytest.raises(HttpError):
            await ask(hyperleap.persona, ACME, PERSONA, media_type="text/plain")


class TestShow:
    async def test_messages_have_every_member(self, hyperleap: Hyperleap) -> None:
        await hyperleap.begin("c", turns=1)
        answer = {
            "role": "assistant",
            "content": "text 1.",
            "messageId": "a1",
            "timestamp": "2026-09-21T14:13:20.750Z",
        }
        assert told(await ask(hyperleap.show, ACME, id="c")) == {
            **ENTRY,
            "conversationId": "c",
            "chatMessages": [MESSAGE, {**MESSAGE, **answer}],
            "chatMessagesCount": 2,
            "chatStarted": True,
        }

    async def test_a_long_one_is_cut_to_its_newest_messages(self, hyperleap: Hyperleap) -> None:
        await hyperleap.begin("c", turns=MESSAGES // 2 + 1)
        shown = told(await ask(hyperleap.show, ACME, id="c"))
        assert isinstance(shown["chatMessages"], list)
        assert (len(shown["chatMessages"]), shown["chatMessagesCount"]) == (MESSAGES, MESSAGES + 2)

    async def test_one_with_long_messages_is_cut_sooner(self, hyperleap: Hyperleap) -> None:
        await hyperleap.begin("c")
        await add(hyperleap.store, ConversationKey("acme", "hyperleap", "c"), long(20))
        shown = told(await ask(hyperleap.show, ACME, id="c"))
        (listed,) = entries(told(await ask(hyperleap.list, ACME)))
        assert isinstance(shown["chatMessages"], list)
        assert (len(shown["chatMessages"]), len(listed["chatMessages"])) == (10, 1)

    async def test_the_agent_may_be_gone(self, hyperleap: Hyperleap) -> None:
        key = ConversationKey("acme", "hyperleap", "c")
        await hyperleap.store.create(key, owner=None, subject="Name", terms=Terms(agent="gone"))
        shown = told(await ask(hyperleap.show, ACME, id="c"))
        assert (shown["model"], shown["conversationName"]) == ("small-model", "Name")

    @pytest.mark.parametrize(
        ("principal", "name"), [(FREE, "c"), (ACME, "d"), (ACME, "c/d"), (ACME, "x" * 129)]
    )
    async def test_a_foreign_one_is_an_unknown_one(
        self, hyperleap: Hyperleap, principal: Principal, name: str
    ) -> None:
        await hyperleap.begin("c")
        with pytest.raises(NotFound):
            await ask(hyperleap.show, principal, id=name)


class TestList:
    async def test_ten_at_a_time_the_newest_first(self, hyperleap: Hyperleap) -> None:
        for number in range(23):
            await hyperleap.begin(str(number))
        await hyperleap.begin("theirs", tenant="free")
        found: list[str] = []
        sizes = []
        query = ""
        for _ in range(3):
            page = told(await ask(hyperleap.list, ACME, query=query))
            assert list(page) == ["data", "continuationToken"]
            assert isinstance(page["data"], list)
            assert all(list(entry) == list(ENTRY) for entry in page["data"])
            found += [entry["conversationId"] for entry in page["data"]]
            sizes.append(len(page["data"]))
            query = f"continuationToken={page['continuationToken']}"
        assert (sizes, page["continuationToken"]) == ([10, 10, 3], None)
        assert found == [str(number) for number in reversed(range(23))]

    async def test_its_entries_have_fewer_messages(self, hyperleap: Hyperleap) -> None:
        await hyperleap.begin("c", turns=LISTED_MESSAGES)
        page = told(await ask(hyperleap.list, ACME, query="continuationToken="))
        assert isinstance(page["data"], list)
        (entry,) = page["data"]
        assert (len(entry["chatMessages"]), entry["chatMessagesCount"]) == (
            LISTED_MESSAGES,
            2 * LISTED_MESSAGES,
        )

    async def test_one_that_is_deleted_meanwhile_is_left_out(self, hyperleap: Hyperleap) -> None:
        store = _Deleting()
        for name in ("kept", DOOMED):
            key = ConversationKey("acme", "hyperleap", name)
            about = Conversation(key, name, None, NOW, tuple(said(1)), updated_at=NOW, length=2)
            await store.restore(about)
        listing = HyperleapList(RING, store, MODELS, hyperleap.clock)
        page = told(await ask(listing, ACME))
        assert [str(entry["conversationId"]) for entry in entries(page)] == ["kept"]

    @pytest.mark.parametrize("token", ["x", "1.0:2&continuationToken=1.0:3"])
    async def test_a_made_up_token_is_refused(self, hyperleap: Hyperleap, token: str) -> None:
        with pytest.raises(BadRequest) as caught:
            await ask(hyperleap.list, ACME, query=f"continuationToken={token}")
        assert [issue.field for issue in caught.value.issues] == ["continuationToken"]


class _Deleting(MemoryStore):
    """Somebody deletes a conversation while it is being listed."""

    async def history(self, key: ConversationKey, *, limit: int, after: int = 0) -> MessagePage:
        if key.id == DOOMED:
            await self.delete(key)
        return await super().history(key, limit=limit, after=after)


def entries(page: dict[str, object]) -> list[dict[str, list[object]]]:
    assert isinstance(page["data"], list)
    return page["data"]


def test_each_path_is_there_twice() -> None:
    desk = Hyperleap()
    paths = {
        (route.method, route.path)
        for endpoint in (desk.general, desk.persona, desk.show, desk.list)
        for route in endpoint.routes
    }
    short = {
        ("POST", "/conversations"),
        ("POST", "/conversations/persona"),
        ("GET", "/conversations/{id}"),
        ("GET", "/conversations"),
    }
    assert paths == short | {(method, f"/api{path}") for method, path in short}
