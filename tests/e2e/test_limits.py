import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.config import DIALECTS, tenant
from tests.e2e.routes import MAIN, WIDGET, Chat
from tests.e2e.wire import Request, whole
from tests.e2e.world import World, open_world

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(
    params=["memory:", "sqlite:gateway.db"], scope="module", loop_scope="module"
)
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    tenants = {
        "few": tenant("few", requests_per_minute=10),
        "single": tenant("single", concurrent_turns=1),
        "streamed": tenant("streamed", tokens_per_minute=3200),
        "visited": tenant("visited", requests_per_minute_per_client=2),
        "crowded": tenant("crowded", concurrent_turns_per_client=1),
        **{
            f"thrifty_{name}": tenant(f"thrifty_{name}", tokens_per_minute=1500)
            for name in DIALECTS
        },
    }
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    async with open_world(
        tmp_path_factory.mktemp("limits"), store=request.param, tenants=tenants, server=server
    ) as opened:
        yield opened


async def statuses(world: World, chat: Chat, times: int, tenant: str) -> Counter[int]:
    asked = (world.ask(chat, "Hello", tenant=tenant) for _ in range(times))
    return Counter([answer.status for answer in await asyncio.gather(*asked)])


async def test_a_burst_of_fifty_against_ten_admits_ten(world: World) -> None:
    world.echo(10)
    assert await statuses(world, WIDGET, 50, "few") == {200: 10, 429: 40}
    world.forget_replies()


async def test_the_next_turn_may_begin_as_soon_as_the_client_has_read_the_last_ones_end(
    world: World,
) -> None:
    for number in range(20):
        world.reply("Hello")
        answer = await world.ask(WIDGET, "Hello", tenant="single")
        assert answer.status == 200, f"turn {number}"


async def test_a_turn_beside_the_only_allowed_one_is_refused(world: World) -> None:
    gate = world.reply_in_two("First", " second")
    async with world.asking(WIDGET, "Hello", tenant="single") as running:
        await running.part()
        refused = await world.ask(WIDGET, "Hello", tenant="single")
        gate.set()
        await whole(running)
    assert (refused.status, refused.json()) == (429, {"error": "Too many requests"})
    assert refused.header("retry-after") == "1"
    assert await world.gateway.total("chatgw_limited_total", limit="concurrent_turns") >= 1


async def test_every_visitor_behind_the_proxy_has_a_limit(world: World) -> None:
    counts: Counter[tuple[str, int]] = Counter()
    for number in range(8):
        visitor = f"203.0.113.{number % 2}"
        world.reply("Hello")
        request = WIDGET.request(f"visit-{number}", "Hello", tenant="visited")
        answer = await world.send(request.plus(("x-forwarded-for", f"198.51.100.9, {visitor}")))
        counts[visitor, answer.status] += 1
    world.forget_replies()
    assert counts == {
        (f"203.0.113.{number}", status): 2 for number in range(2) for status in (200, 429)
    }


async def test_a_visitor_has_one_turn_at_once_and_others_have_theirs_meanwhile(
    world: World,
) -> None:
    def visit(number: int) -> Request:
        request = WIDGET.request(f"crowd-{number}", "Hello", tenant="crowded")
        return request.plus(("x-forwarded-for", f"203.0.113.{number % 2}"))

    gate = world.reply_in_two("First", " second")
    connection = await world.h1()
    running = await connection.send(visit(0))
    await running.part()
    refused = await world.send(visit(2))
    world.reply("Hello")
    other = await world.send(visit(1))
    gate.set()
    await whole(running)
    await connection.close()
    assert (refused.status, other.status) == (429, 200)


@pytest.mark.parametrize("chat", MAIN, ids=[chat.dialect for chat in MAIN])
async def test_a_tenant_over_its_tokens_waits(world: World, chat: Chat) -> None:
    name = f"thrifty_{chat.dialect}"
    world.reply("Hello", usage=(700, 700))
    assert (await world.ask(chat, "Hello", tenant=name)).status == 200
    calls = world.calls
    refused = await world.ask(chat, "Hello", tenant=name)
    assert refused.status == 429
    assert int(refused.header("retry-after") or 0) > 1
    assert world.calls == calls


async def test_a_body_without_a_declared_length_costs_what_it_has(world: World) -> None:
    for number in range(3):  # three times the cap of a body would be 98304 tokens
        request = WIDGET.request(f"streamed-{number}", "Hello", tenant="streamed")
        world.reply("Hello", usage=None)
        assert (await world.send(request, protocol="h2")).status == 200, f"turn {number}"
