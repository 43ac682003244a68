import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.config import ORIGIN, key_of, tenant, token_of
from tests.e2e.neighbours import (
    ENTRIES,
    ENTRY,
    GENERAL,
    KEYED,
    LIST,
    PERSONA,
    SESSION,
    SESSION_END,
    SESSION_SHOW,
    SHOW,
    START,
    THREAD,
    THREADS,
    UNREAD,
    UPDATE,
    Neighbour,
    good,
    tell,
)
from tests.e2e.refusals import check, words
from tests.e2e.routes import HELPER, HYPERLEAP, HYPONEMA, MAIN, WIDGET, Chat
from tests.e2e.wire import Request
from tests.e2e.world import PROTOCOLS, WAITER, World, open_world, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = "https://elsewhere.example"
EVE = f"Bearer {token_of('acme', 'eve@example.com')}"
JSON = ("content-type", "application/json")
VISITOR = Request("POST", "/api/widget/session", (JSON,), b"{}")


async def conversations(world: World) -> dict[str, str]:
    """A conversation of each dialect, by the id that its endpoints know it by."""
    known = {chat.dialect: await world.conversation(chat) for chat in MAIN}
    for chat in (HYPONEMA, HYPERLEAP, WIDGET):
        world.reply("Fine")
        answer = await world.ask(chat, "Hello", conversation=known[chat.dialect])
        assert answer.status == 200
    threads = (await tell(world, THREADS))["conversations"]
    assert isinstance(threads, list)
    assert threads[0]["sessionId"] == known["widget"]
    return {**known, "widget": str(threads[0]["_id"])}


def by_id(neighbour: Neighbour) -> str:
    return neighbour.id


class TestEveryEndpoint:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("neighbour", KEYED, ids=by_id)
    async def test_a_credential_is_asked_for_before_the_body_is_read(
        self, world: World, neighbour: Neighbour, protocol: str
    ) -> None:
        request = neighbour.request().without(neighbour.credential()[0]).carrying(b"{")
        answer = await world.send(request, protocol=protocol)
        check(neighbour.dialect, "unauthorized", answer)
        credential = neighbour.credential()[1][:-1] + "_"
        request = neighbour.request(credential=credential).carrying(b"{")
        check(neighbour.dialect, "unauthorized", await world.send(request, protocol=protocol))

    @pytest.mark.parametrize("neighbour", KEYED, ids=by_id)
    async def test_an_unlisted_origin_is_refused_and_cannot_read_why(
        self, world: World, neighbour: Neighbour
    ) -> None:
        answer = await world.send(neighbour.request().plus(("origin", STRANGER)))
        check(neighbour.dialect, "forbidden", answer)
        assert not answer.header("access-control-allow-origin")

    @pytest.mark.parametrize("neighbour", KEYED, ids=by_id)
    async def test_a_listed_origin_can_read_the_answer(
        self, world: World, neighbour: Neighbour
    ) -> None:
        answer = await world.send(neighbour.request("unknown").plus(("origin", ORIGIN)))
        assert answer.status in (200, 201, 404)
        assert answer.header("access-control-allow-origin") == ORIGIN
        asked = (("origin", ORIGIN), ("access-control-request-method", neighbour.method))
        allowed = await world.send(Request("OPTIONS", neighbour.path, asked))
        assert (allowed.status, allowed.header("access-control-allow-origin")) == (204, ORIGIN)
        assert neighbour.method in allowed.header("access-control-allow-methods")
        assert neighbour.credential()[0] in allowed.header("access-control-allow-headers")

    @pytest.mark.parametrize("neighbour", KEYED, ids=by_id)
    async def test_a_body_over_the_bound_is_refused(
        self, world: World, neighbour: Neighbour
    ) -> None:
        request = neighbour.request().carrying(b'{"x":"' + b"x" * 150_000 + b'"}')
        check(neighbour.dialect, "payload_too_large", await world.send(request))

    async def test_only_refusals_are_counted_and_each_by_its_kind(self, world: World) -> None:
        known = await conversations(world)
        before = await world.gateway.settled()
        for neighbour in KEYED:
            id_ = known[neighbour.dialect]
            assert (await world.send(neighbour.request(id_))).status in (200, 201)
        for refused in (
            START.request(credential="Bearer x.y.z"),
            SHOW.request("unknown"),
            UPDATE.request("unknown").carrying(b"{}"),
            VISITOR.carrying(b"[]"),
            VISITOR,
            Request("POST", "/api/chat/contact"),
            THREADS.request().to("GET", "/v1/admin/conversations?limit=x"),
            THREAD.request("unknown"),
        ):
            assert (await world.send(refused)).status >= 400
        grown = (await world.gateway.settled()).since(before)
        kinds = grown.by("chatgw_refused_total", "kind")
        assert kinds == Counter(unauthorized=1, not_found=3, bad_request=4)
        assert grown.total("chatgw_turns_total") == 0

    async def test_a_tenants_limit_counts_every_endpoint(self, world: World) -> None:
        assert await tell(world, UNREAD, tenant="rationed") == {"count": 0}
        await world.conversation(HELPER, tenant="rationed")
        check("helper", "rate_limited", await world.send(LIST.request(tenant="rationed")))
        session = VISITOR.carrying(b'{"mailboxSlug": "rationed"}')
        check("helper", "rate_limited", await world.send(session))


class TestHelper:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    async def test_a_conversation_from_its_start_to_the_list(
        self, world: World, protocol: str
    ) -> None:
        slug = str((await tell(world, START, protocol=protocol))["conversationSlug"])
        unread = await tell(world, UNREAD)
        world.reply("On its", " way.")
        await world.ask(HELPER, "Where is it?", conversation=slug, protocol=protocol)
        assert await tell(world, UNREAD) == {"count": int(str(unread["count"])) + 1}

        listed = (await tell(world, LIST, protocol=protocol))["conversations"]
        assert isinstance(listed, list)
        assert (listed[0]["slug"], listed[0]["subject"]) == (slug, "Shipping")
        assert (listed[0]["latestMessage"], listed[0]["messageCount"]) == ("On its way.", 2)
        assert listed[0]["isUnread"] is True

        shown = await tell(world, SHOW, slug, protocol=protocol)
        messages = shown["messages"]
        assert isinstance(messages, list)
        assert [(entry["role"], entry["content"]) for entry in messages] == [
            ("user", "Where is it?"),
            ("assistant", "On its way."),
        ]
        assert await tell(world, UNREAD) == unread
        assert await tell(world, UPDATE, slug, protocol=protocol) == {"success": True}

    @pytest.mark.parametrize("neighbour", [SHOW, UPDATE], ids=by_id)
    async def test_another_visitor_is_not_let_in(self, world: World, neighbour: Neighbour) -> None:
        slug = await world.conversation(HELPER)
        answer = await world.send(neighbour.request(slug, credential=EVE))
        assert (answer.status, words("helper", answer)) == (401, "Unauthorized")
        check("helper", "unknown", await world.send(neighbour.request(slug, tenant="other")))
        check("helper", "unknown", await world.send(neighbour.request("unknown")))

    @pytest.mark.parametrize(
        "path",
        [
            "/api/chat/conversation/{id}/message",
            "/api/chat/conversation/{id}/message/1",
            "/api/chat/contact",
        ],
    )
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    async def test_what_is_not_served_can_be_read_from_any_page(
        self, world: World, path: str, protocol: str
    ) -> None:
        request = Neighbour("helper", "POST", path, {"content": "x"}).request()
        answer = await world.send(request.plus(("origin", ORIGIN)), protocol=protocol)
        assert (answer.status, words("helper", answer)) == (404, "Not supported")
        assert answer.header("access-control-allow-origin")
        asked = (("origin", ORIGIN), ("access-control-request-method", "POST"))
        answer = await world.send(Request("OPTIONS", request.path, asked), protocol=protocol)
        assert (answer.status, answer.header("access-control-allow-origin")) == (204, ORIGIN)

    async def test_a_session_is_judged_by_its_tenants_origins(self, world: World) -> None:
        for name, status in (("other", 200), ("acme", 401)):
            body = b'{"mailboxSlug": "%s"}' % name.encode()
            answer = await world.send(VISITOR.carrying(body).plus(("origin", STRANGER)))
            assert answer.status == status
            assert bool(answer.header("access-control-allow-origin")) is (status == 200)
        answer = await world.send(VISITOR.carrying(b'{"mailboxSlug": "acme"}'))
        assert good(answer)["valid"] is True


class TestChosenAgents:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        ("chat", "start", "id_"),
        [(HYPONEMA, SESSION, "id"), (HYPERLEAP, PERSONA, "conversationId")],
        ids=["hyponema", "hyperleap"],
    )
    async def test_the_agent_that_was_asked_for_serves_with_its_prompt_filled_in(
        self, world: World, chat: Chat, start: Neighbour, id_: str, protocol: str
    ) -> None:
        assert isinstance(start.body, dict)
        values = {"name": "Ada {{table}}", "unused": "x"}
        body = {**start.body, "dynamic_variables": values, "replacements": values}
        made = await tell(world, replace(start, body=body), protocol=protocol)
        for number in range(3):
            world.reply(f"Answer {number}")
            text = f"Question {number}"
            answer = await world.ask(chat, text, conversation=str(made[id_]), protocol=protocol)
            assert answer.status == 200
        messages = world.upstream.requests[-1].json["messages"]
        assert isinstance(messages, list)
        prompt = WAITER.replace("{{name}}", "Ada {{table}}")
        assert [entry["content"] for entry in messages] == [
            prompt,
            "Question 1",
            "Answer 1",
            "Question 2",
        ]

    async def test_an_agent_with_a_longer_memory_is_shown_more(self, world: World) -> None:
        body = {"agent_id": "agent_elephant", "user_id": "u"}
        made = await tell(world, replace(SESSION, body=body))
        for number in range(17):
            world.reply(f"Answer {number}")
            await world.ask(HYPONEMA, f"Question {number}", conversation=str(made["id"]))
        assert len(world.last_messages()) == 33

    @pytest.mark.parametrize(
        ("chat", "start", "id_"),
        [(HYPONEMA, SESSION, "id"), (HYPERLEAP, PERSONA, "conversationId")],
        ids=["hyponema", "hyperleap"],
    )
    async def test_where_unknown_conversations_are_refused_a_started_one_is_known(
        self, world: World, chat: Chat, start: Neighbour, id_: str
    ) -> None:
        made = await tell(world, start, tenant="strict")
        world.reply("Fine")
        answer = await world.ask(chat, "Hello", conversation=str(made[id_]), tenant="strict")
        assert answer.status == 200
        unknown = await world.ask(chat, "Hello", conversation="unknown", tenant="strict")
        check(chat.dialect, "unknown", unknown)

    async def test_an_agent_that_nobody_configured_is_not_found(self, world: World) -> None:
        for start, name in ((SESSION, "agent_id"), (PERSONA, "personaId")):
            assert isinstance(start.body, dict)
            request = replace(start, body={**start.body, name: "agent_nobody"}).request()
            check(start.dialect, "unknown", await world.send(request))


class TestHyponema:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    async def test_a_session_from_its_start_to_its_end(self, world: World, protocol: str) -> None:
        made = await tell(world, SESSION, protocol=protocol)
        assert list(made) == ["id", "status", "ws_url", "chat_url", "token", "expires_at"]
        session = str(made["id"])
        world.reply("Fine")
        assert (await world.ask(HYPONEMA, "Hello", conversation=session)).status == 200
        shown = await tell(world, SESSION_SHOW, session, protocol=protocol)
        assert (shown["id"], shown["status"]) == (session, "in_progress")
        ended = await tell(world, SESSION_END, session, protocol=protocol)
        assert ended == {**shown, "status": "failed"}
        assert await tell(world, SESSION_END, session, protocol=protocol) == ended
        before = world.calls
        check("hyponema", "conflict", await world.ask(HYPONEMA, "Hello?", conversation=session))
        assert world.calls == before

    async def test_a_session_whose_time_is_over_takes_no_message(self, world: World) -> None:
        assert isinstance(SESSION.body, dict)
        brief = replace(SESSION, body={**SESSION.body, "ttl_seconds": 1})
        loop = asyncio.get_running_loop()
        began = loop.time()
        session = str((await tell(world, brief))["id"])
        world.echo(1000)
        while (last := await world.ask(HYPONEMA, "Hello", conversation=session)).status == 200:
            assert loop.time() - began < 20
            await asyncio.sleep(0.1)
        assert loop.time() - began >= 1
        check("hyponema", "conflict", last)
        assert (await tell(world, SESSION_SHOW, session))["status"] == "completed"

    @pytest.mark.parametrize("neighbour", [SESSION_SHOW, SESSION_END], ids=by_id)
    async def test_a_session_of_another_tenant_is_unknown(
        self, world: World, neighbour: Neighbour
    ) -> None:
        session = str((await tell(world, SESSION))["id"])
        check("hyponema", "unknown", await world.send(neighbour.request(session, tenant="other")))


class TestHyperleap:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    async def test_a_conversation_from_its_start_to_the_list(
        self, world: World, protocol: str
    ) -> None:
        made = await tell(world, GENERAL, protocol=protocol)
        id_ = str(made["conversationId"])
        assert str(uuid.UUID(id_)) == id_
        world.reply("Fine")
        assert (await world.ask(HYPERLEAP, "Hello", conversation=id_)).status == 200
        shown = await tell(world, ENTRY, id_, protocol=protocol)
        assert isinstance(shown["chatMessages"], list)
        assert [entry["content"] for entry in shown["chatMessages"]] == ["Hello", "Fine"]
        assert (shown["model"], shown["chatMessagesCount"]) == ("test-model", 2)
        listed = await tell(world, ENTRIES, protocol=protocol)
        assert isinstance(listed["data"], list)
        assert listed["data"][0] == shown
        check("hyperleap", "unknown", await world.send(ENTRY.request(id_, tenant="other")))

    async def test_a_bad_body_is_explained(self, world: World) -> None:
        answer = await world.send(GENERAL.request().carrying(b'{"aiSystem": 9, "model": "m"}'))
        check("hyperleap", "bad_request", answer)
        body = answer.json()
        assert isinstance(body, dict)
        assert [detail["field"] for detail in body["error"]["details"]] == ["aiSystem"]


class TestWidgetAdmin:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("reply", ["Fine", " Fine\n", " "])
    async def test_the_operator_reads_what_the_visitor_did(
        self, world: World, reply: str, protocol: str
    ) -> None:
        session = await world.conversation(WIDGET)
        world.reply(reply)
        said = read(WIDGET, await world.ask(WIDGET, "Hello", conversation=session))
        listed = (await tell(world, THREADS, protocol=protocol))["conversations"]
        assert isinstance(listed, list)
        assert (listed[0]["sessionId"], listed[0]["lastMessage"]) == (session, said.text)
        thread = await tell(world, THREAD, str(listed[0]["_id"]), protocol=protocol)
        assert thread["conversation"] == listed[0]
        assert isinstance(thread["messages"], list)
        assert [entry["content"] for entry in thread["messages"]] == ["Hello", said.text]

    async def test_a_clients_key_is_no_operators(self, world: World) -> None:
        key = key_of("acme", "widget")
        for name in ("x-admin-api-key", "x-api-key"):
            request = THREADS.request().without("x-admin-api-key").plus((name, key))
            check("widget", "unauthorized", await world.send(request))
        check("widget", "unauthorized", await world.send(THREADS.request(tenant="other")))

    async def test_a_thread_that_is_not_there(self, world: World) -> None:
        answer = await world.send(THREAD.request("unknown"))
        assert (answer.status, words("widget", answer)) == (404, "Conversation not found")

    async def test_a_gateway_without_operators(self, tmp_path: Path) -> None:
        async with open_world(tmp_path, tenants={"acme": tenant("acme")}) as world:
            for neighbour in (THREADS, THREAD):
                answer = await world.send(neighbour.request())
                assert answer.status == 503
                text = "ADMIN_API_KEY is not configured on this deployment"
                assert words("widget", answer) == text
