import asyncio
from collections import Counter

import pytest

from tests.e2e.config import ORIGIN, token_of
from tests.e2e.neighbours import KEYED, LIST, SHOW, START, UNREAD, UPDATE, Neighbour, good, tell
from tests.e2e.refusals import check, words
from tests.e2e.routes import HELPER, credential_field
from tests.e2e.wire import Request
from tests.e2e.world import PROTOCOLS, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

# How old the figures of a scrape may be.
METRICS_AGE_S = 1.1
STRANGER = "https://elsewhere.example"
EVE = f"Bearer {token_of('acme', 'eve@example.com')}"
JSON = ("content-type", "application/json")
SESSION = Request("POST", "/api/widget/session", (JSON,), b"{}")


def by_id(neighbour: Neighbour) -> str:
    return neighbour.id


class TestEveryEndpoint:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("neighbour", KEYED, ids=by_id)
    async def test_a_credential_is_asked_for_before_the_body_is_read(
        self, world: World, neighbour: Neighbour, protocol: str
    ) -> None:
        name, _ = credential_field(neighbour.dialect, "acme")
        request = neighbour.request().without(name).carrying(b"{")
        answer = await world.send(request, protocol=protocol)
        check(neighbour.dialect, "unauthorized", answer)
        request = neighbour.request(credential="Bearer x.y.z").carrying(b"{")
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

    @pytest.mark.parametrize("neighbour", KEYED, ids=by_id)
    async def test_a_body_over_the_bound_is_refused(
        self, world: World, neighbour: Neighbour
    ) -> None:
        request = neighbour.request().carrying(b'{"x":"' + b"x" * 150_000 + b'"}')
        check(neighbour.dialect, "payload_too_large", await world.send(request))

    async def test_only_refusals_are_counted_and_each_by_its_kind(self, world: World) -> None:
        slug = await world.conversation(HELPER)
        await asyncio.sleep(METRICS_AGE_S)
        turns = await world.gateway.total("chatgw_turns_total")
        before = await world.gateway.by("chatgw_refused_total", "kind")
        for neighbour in KEYED:
            assert (await world.send(neighbour.request(slug))).status in (200, 201)
        for refused in (
            START.request(credential="Bearer x.y.z"),
            SHOW.request("unknown"),
            UPDATE.request("unknown").carrying(b"{}"),
            SESSION.carrying(b"[]"),
            SESSION,
            Request("POST", "/api/chat/contact"),
        ):
            assert (await world.send(refused)).status >= 400
        await world.gateway.eventually("chatgw_refused_total", before.total() + 6)
        after = await world.gateway.by("chatgw_refused_total", "kind")
        assert after - before == Counter(unauthorized=1, not_found=2, bad_request=3)
        assert await world.gateway.total("chatgw_turns_total") == turns

    async def test_a_tenants_limit_counts_every_endpoint(self, world: World) -> None:
        tenant = {"tenant": "rationed"}
        assert await tell(world, UNREAD, **tenant) == {"count": 0}
        await world.conversation(HELPER, tenant="rationed")
        check("helper", "rate_limited", await world.send(LIST.request(**tenant)))
        session = SESSION.carrying(b'{"mailboxSlug": "rationed"}')
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
        for tenant, status in (("other", 200), ("acme", 401)):
            body = b'{"mailboxSlug": "%s"}' % tenant.encode()
            answer = await world.send(SESSION.carrying(body).plus(("origin", STRANGER)))
            assert answer.status == status
            assert bool(answer.header("access-control-allow-origin")) is (status == 200)
        answer = await world.send(SESSION.carrying(b'{"mailboxSlug": "acme"}'))
        assert good(answer)["valid"] is True
