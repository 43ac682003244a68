from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.config import DIALECTS, tenant
from tests.e2e.refusals import check
from tests.e2e.routes import MAIN, WIDGET, Chat
from tests.e2e.wire import Answer, Request, whole
from tests.e2e.world import PROTOCOLS, World, open_world

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGER, NEIGHBOUR = "203.0.113.66", "203.0.113.7"
JSON = ("content-type", "application/json")
OTHERS = (
    ("hyponema", Request("POST", "/sessions", (JSON, ("authorization", "Bearer wrong")))),
    ("hyperleap", Request("GET", "/conversations", (("x-hl-api-key", "wrong"),))),
    ("widget", Request("GET", "/v1/admin/conversations", (("x-admin-api-key", "wrong"),))),
    (
        "helper",
        Request(
            "POST",
            "/api/widget/session",
            (JSON,),
            b'{"email": "a@b.example", "emailHash": "00", "timestamp": 1}',
        ),
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Behind a proxy, with a stranger who has sent a thousand wrong keys."""
    dialects = {"widget": {"admin_key": "x" * 32}}
    async with open_world(
        tmp_path_factory.mktemp("strangers"),
        tenants={"acme": tenant("acme", dialects=dialects)},
        server={"trusted_proxies": ["127.0.0.0/8"]},
    ) as opened:
        assert sum((await keys_tried(opened, 1000)).values()) == 1000
        yield opened


async def keys_tried(world: World, times: int) -> Counter[int]:
    """The statuses of as many wrong keys of the stranger's, on one connection."""
    statuses: Counter[int] = Counter()
    connection = await world.h1()
    try:
        for number in range(times):
            request = WIDGET.request("c", "Hello", credential=f"wrong-{number}")
            answer = await whole(await connection.send(of(STRANGER, request)))
            statuses[answer.status] += 1
    finally:
        await connection.close()
    return statuses


def of(visitor: str, request: Request) -> Request:
    return request.plus(("x-forwarded-for", visitor))


async def throttled(world: World, request: Request, protocol: str = "h1") -> Answer:
    """The stranger's first refusal that is no 401; five a second are."""
    for _ in range(100):
        answer = await world.send(of(STRANGER, request), protocol=protocol)
        if answer.status != 401:
            return answer
    raise AssertionError("all were answered 401")


async def test_most_of_a_thousand_wrong_keys_are_throttled_and_counted(world: World) -> None:
    counts = await world.gateway.by("chatgw_limited_total", "limit")
    assert counts["wrong_credentials"] > 100
    (told, *more) = await world.gateway.logged("wrong_credentials")
    assert (told["visitor"], more) == (STRANGER, [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", MAIN, ids=lambda chat: chat.dialect)
async def test_a_throttled_stranger_is_told_so_in_the_dialects_words(
    world: World, chat: Chat, protocol: str
) -> None:
    request = chat.request("c", "Hello", credential="Bearer wrong")
    check(chat.dialect, "rate_limited", await throttled(world, request, protocol))


@pytest.mark.parametrize(("dialect", "asked"), OTHERS, ids=DIALECTS)
async def test_the_endpoints_beside_the_chat_count_wrong_credentials_too(
    world: World, dialect: str, asked: Request
) -> None:
    check(dialect, "rate_limited", await throttled(world, asked))


@pytest.mark.parametrize("visitor", [STRANGER, NEIGHBOUR])
@pytest.mark.parametrize("chat", MAIN, ids=lambda chat: chat.dialect)
async def test_a_right_key_is_served_wherever_it_comes_from(
    world: World, chat: Chat, visitor: str
) -> None:
    conversation = await world.conversation(chat)
    world.reply("Hello")
    assert (await world.send(of(visitor, chat.request(conversation, "Hi")))).status == 200


@pytest.mark.parametrize("chat", MAIN, ids=lambda chat: chat.dialect)
async def test_a_neighbours_wrong_key_is_a_wrong_key(world: World, chat: Chat) -> None:
    request = of(NEIGHBOUR, chat.request("c", "Hello", credential="Bearer wrong"))
    check(chat.dialect, "unauthorized", await world.send(request))
