import pytest

from tests.e2e.config import ORIGIN
from tests.e2e.routes import ALL, HELPER, HYPERLEAP, HYPONEMA, MAIN, WIDGET, Chat
from tests.e2e.wire import Answer, Request
from tests.e2e.world import PROTOCOLS, World, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER = "https://elsewhere.example"


def by_id(chat: Chat) -> str:
    return chat.id


def words_of(answer: Answer, name: str) -> set[str]:
    return {word.strip().lower() for word in answer.header(name).split(",")}


def preflight(chat: Chat, origin: str) -> Request:
    asked = ("access-control-request-method", chat.method)
    headers = ("access-control-request-headers", "content-type,x-api-key,authorization")
    path = chat.path.replace("{id}", "c")
    return Request("OPTIONS", path, (("origin", origin), asked, headers))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", [chat for chat in ALL if chat.dialect != "helper"], ids=by_id)
async def test_a_preflight_from_a_listed_origin(world: World, chat: Chat, protocol: str) -> None:
    answer = await world.send(preflight(chat, ORIGIN), protocol=protocol)
    assert (answer.status, answer.body, answer.ended) == (204, b"", True)
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert "origin" in words_of(answer, "vary")
    assert chat.method.lower() in words_of(answer, "access-control-allow-methods")
    assert words_of(answer, "access-control-allow-headers") == {
        "content-type",
        "authorization",
        "x-api-key",
        "x-widget-api-key",
        "x-hl-api-key",
        "x-request-id",
        "idempotency-key",
        "traceparent",
    }
    assert answer.header("access-control-max-age") == "600"
    assert not answer.header("access-control-allow-credentials")


@pytest.mark.parametrize("chat", [HYPONEMA, HYPERLEAP, WIDGET], ids=by_id)
@pytest.mark.parametrize("origin", [STRANGER, "null", ORIGIN + ".evil.example", ORIGIN + ":444"])
async def test_a_preflight_from_another_origin(world: World, chat: Chat, origin: str) -> None:
    answer = await world.send(preflight(chat, origin))
    assert answer.status == 204
    assert [name for name, _ in answer.headers if name.startswith("access-control")] == []


async def test_helper_is_open_to_every_origin_unless_its_tenant_lists_some(world: World) -> None:
    answer = await world.send(preflight(HELPER, STRANGER))
    assert answer.status == 204
    assert answer.header("access-control-allow-origin") in {"*", STRANGER}
    for tenant, status in (("other", 200), ("acme", 401)):
        world.reply("Hello")
        conversation = await world.conversation(HELPER, tenant=tenant)
        request = HELPER.request(conversation, "Hi", tenant=tenant).plus(("origin", STRANGER))
        answer = await world.send(request)
        assert answer.status == status
        allowed = answer.header("access-control-allow-origin")
        assert allowed in ({"*", STRANGER} if status == 200 else {""})
    world.forget_replies()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", [HYPONEMA, HYPERLEAP, WIDGET], ids=by_id)
async def test_a_stream_to_a_listed_origin(world: World, chat: Chat, protocol: str) -> None:
    world.reply("Hello")
    request = chat.request("cors", "Hi").plus(("origin", ORIGIN))
    answer = await world.send(request, protocol=protocol)
    assert read(chat, answer).text == "Hello"
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert "origin" in words_of(answer, "vary")
    assert words_of(answer, "access-control-expose-headers") == {"x-request-id", "retry-after"}


@pytest.mark.parametrize("chat", [HYPONEMA, HYPERLEAP, WIDGET], ids=by_id)
async def test_an_unlisted_origin_gets_no_answer_from_the_model(world: World, chat: Chat) -> None:
    before = world.calls
    for origins in ((STRANGER,), (STRANGER, ORIGIN), (ORIGIN, STRANGER)):
        fields = [("origin", origin) for origin in origins]
        answer = await world.send(chat.request("cors", "Hi").plus(*fields))
        assert answer.status == (401 if chat is WIDGET else 403)
        assert answer.header("access-control-allow-origin") != STRANGER
    assert world.calls == before


@pytest.mark.parametrize("chat", [HYPONEMA, HYPERLEAP, WIDGET], ids=by_id)
async def test_a_listed_origin_can_read_an_error(world: World, chat: Chat) -> None:
    empty = chat.request("cors", "x").carrying(b"{}").plus(("origin", ORIGIN))
    for request, status in ((empty, 400), (empty.plus(("x-long", "y" * 17_000)), 431)):
        answer = await world.send(request)
        assert answer.status == status
        assert answer.header("access-control-allow-origin") == ORIGIN


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_without_an_origin_nothing_is_said_about_origins(world: World, chat: Chat) -> None:
    world.reply("Hello")
    answer = await world.ask(chat, "Hi")
    assert answer.status == 200
    assert not answer.header("access-control-allow-origin")
