import asyncio
from collections import Counter

import pytest

from tests.e2e.routes import ALL, STREAMING, WIDGET, Chat
from tests.e2e.wire import Exchange
from tests.e2e.world import PROTOCOLS, World, read

pytestmark = pytest.mark.asyncio(loop_scope="module")


def by_id(chat: Chat) -> str:
    return chat.id


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_client_that_leaves_in_the_middle(world: World, chat: Chat, protocol: str) -> None:
    world.reply_in_two("First", " never")
    async with world.asking(chat, "Hello", protocol=protocol) as exchange:
        await exchange.head()
        await exchange.part()
        await exchange.vanish()
        await world.upstream_is_alone()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", ALL, ids=by_id)
async def test_a_client_that_leaves_before_the_first_word(
    world: World, chat: Chat, protocol: str
) -> None:
    world.reply_in_two("", " never")
    calls = world.calls
    async with world.asking(chat, "Hello", protocol=protocol) as exchange:
        await world.called(calls + 1)
        await exchange.vanish()
        await world.upstream_is_alone()


async def test_every_client_that_left_is_counted_once(world: World) -> None:
    gateway = world.gateway
    await gateway.eventually("chatgw_turns_in_flight", 0)
    before = await gateway.by("chatgw_turns_total", "outcome")
    for protocol in PROTOCOLS:
        for chat in STREAMING:
            world.reply_in_two("First", " never")
            async with world.asking(chat, "Hello", protocol=protocol) as exchange:
                await exchange.part()
                await exchange.vanish()
                await world.upstream_is_alone()
    left = len(PROTOCOLS) * len(STREAMING)
    await gateway.eventually("chatgw_turns_total", before.total() + left)
    after = await gateway.by("chatgw_turns_total", "outcome")
    assert after - before == Counter(client_disconnect=left)
    assert await gateway.total("chatgw_turns_in_flight") == 0


async def test_a_tcp_reset_in_the_middle(world: World) -> None:
    world.reply_in_two("First", " never")
    connection = await world.h1()
    exchange = await connection.send(WIDGET.request("reset", "Hello"))
    await exchange.part()
    connection.abort()
    await world.upstream_is_alone()


async def test_the_end_of_a_connection_ends_every_turn_on_it(world: World) -> None:
    connection = await world.h2()
    for number in range(8):
        world.reply_in_two("First", " never")
        exchange = await connection.send(WIDGET.request(f"many-{number}", "Hello"))
        await exchange.part()
    await connection.close()
    await world.upstream_is_alone()


async def test_a_neighbour_on_the_connection_goes_on(world: World) -> None:
    connection = await world.h2()
    try:
        gate = world.reply_in_two("First", " second")
        staying = await connection.send(WIDGET.request("staying", "Hello"))
        await staying.part()
        world.reply_in_two("First", " never")
        leaving = await connection.send(WIDGET.request("leaving", "Hello"))
        await leaving.part()
        await leaving.vanish()
        await asyncio.sleep(0.1)
        gate.set()
        while await staying.part() is not None:
            pass
        assert read(WIDGET, staying.answer).text == "First second"
    finally:
        await connection.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_was_shown_before_the_client_left_is_remembered(
    world: World, protocol: str
) -> None:
    conversation = await world.conversation(WIDGET)
    world.reply_in_two("I was saying", " never")
    async with world.asking(
        WIDGET, "Hello", conversation=conversation, protocol=protocol
    ) as exchange:
        await _until_shown(exchange, b"I was saying")
        await exchange.vanish()
        await world.upstream_is_alone()
    world.reply("Again")
    await world.ask(WIDGET, "Go on", conversation=conversation)
    assert world.last_messages() == [
        ("user", "Hello"),
        ("assistant", "I was saying"),
        ("user", "Go on"),
    ]


async def _until_shown(exchange: Exchange, text: bytes) -> None:
    await exchange.head()
    while text not in exchange.answer.body:
        assert await exchange.part() is not None


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_turn_that_is_to_finish_finishes_without_its_client(
    world: World, protocol: str
) -> None:
    conversation = await world.conversation(WIDGET)
    gate = world.reply_in_two("I was saying", " more")
    async with world.asking(
        WIDGET, "Hello", conversation=conversation, tenant="patient", protocol=protocol
    ) as exchange:
        await _until_shown(exchange, b"I was saying")
        await exchange.vanish()
        gate.set()
        await world.gateway.eventually("chatgw_turns_in_flight", 0)
    world.reply("Again")
    await world.ask(WIDGET, "Go on", conversation=conversation, tenant="patient")
    assert ("assistant", "I was saying more") in world.last_messages()


async def test_what_is_generated_after_a_client_left_is_counted_as_undelivered(
    world: World,
) -> None:
    name = "chatgw_undelivered_deltas_total"
    gateway = world.gateway
    before = await gateway.total(name, dialect="widget")
    gate = world.reply_in_two("First", " second")
    async with world.asking(WIDGET, "Hello", tenant="patient") as exchange:
        await exchange.part()
        await exchange.vanish()
        await asyncio.sleep(0.3)
        gate.set()
        await world.upstream_is_alone()
    await gateway.eventually(name, before + 1, dialect="widget")
