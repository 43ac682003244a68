from collections import Counter

import pytest

from tests.e2e.routes import ALL, HYPERLEAP, STREAMING, WIDGET, Chat
from tests.e2e.wire import shown, whole
from tests.e2e.world import PROTOCOLS, World, read

pytestmark = pytest.mark.asyncio(loop_scope="module")


def by_id(chat: Chat) -> str:
    return chat.id


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_client_that_leaves_in_the_middle(world: World, chat: Chat, protocol: str) -> None:
    world.reply_in_two("First", " never")
    async with world.asking(chat, "Hello", protocol=protocol) as exchange:
        await shown(exchange, "First")
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


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_client_that_leaves_and_is_back_at_once_is_answered(
    world: World, chat: Chat, protocol: str
) -> None:
    conversation = await world.conversation(chat)
    connect = world.h1 if protocol == "h1" else world.h2
    first = await connect()
    again = await connect() if protocol == "h1" else first
    for _ in range(5):
        world.reply_in_two("First", " never")
        exchange = await first.send(chat.request(conversation, "Hello"))
        await shown(exchange, "First")
        world.reply("Second")
        await exchange.vanish()
        answer = await whole(await again.send(chat.request(conversation, "Go on")))
        assert answer.status == 200
        if protocol == "h1":
            first = await connect()
    for connection in (first, again):
        await connection.close()


async def test_every_client_that_left_is_counted_once(world: World) -> None:
    before = await world.gateway.settled()
    for protocol in PROTOCOLS:
        for chat in STREAMING:
            world.reply_in_two("First", " never")
            async with world.asking(chat, "Hello", protocol=protocol) as exchange:
                await shown(exchange, "First")
                await exchange.vanish()
                await world.upstream_is_alone()
    left = len(PROTOCOLS) * len(STREAMING)
    grown = (await world.gateway.settled()).since(before)
    assert grown.by("chatgw_turns_total", "outcome") == Counter(client_disconnect=left)


async def test_a_tcp_reset_in_the_middle(world: World) -> None:
    world.reply_in_two("First", " never")
    connection = await world.h1()
    exchange = await connection.send(WIDGET.request("reset", "Hello"))
    await shown(exchange, "First")
    connection.abort()
    await world.upstream_is_alone()


async def test_the_end_of_a_connection_ends_every_turn_on_it(world: World) -> None:
    connection = await world.h2()
    for number in range(8):
        world.reply_in_two("First", " never")
        exchange = await connection.send(WIDGET.request(f"many-{number}", "Hello"))
        await shown(exchange, "First")
    await connection.close()
    await world.upstream_is_alone()


async def test_a_neighbour_on_the_connection_goes_on(world: World) -> None:
    connection = await world.h2()
    try:
        gate = world.reply_in_two("First", " second")
        staying = await connection.send(WIDGET.request("staying", "Hello"))
        await shown(staying, "First")
        world.reply_in_two("First", " never")
        leaving = await connection.send(WIDGET.request("leaving", "Hello"))
        await shown(leaving, "First")
        await leaving.vanish()
        await world.noticed()
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
        await shown(exchange, "I was saying")
        await exchange.vanish()
        await world.upstream_is_alone()
    world.reply("Again")
    await world.ask(WIDGET, "Go on", conversation=conversation)
    assert world.last_messages() == [
        ("user", "Hello"),
        ("assistant", "I was saying"),
        ("user", "Go on"),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_turn_that_is_to_finish_finishes_without_its_client(
    world: World, protocol: str
) -> None:
    conversation = await world.conversation(WIDGET)
    gate = world.reply_in_two("I was saying", " more")
    async with world.asking(
        WIDGET, "Hello", conversation=conversation, tenant="patient", protocol=protocol
    ) as exchange:
        await shown(exchange, "I was saying")
        await exchange.vanish()
        gate.set()
        await world.gateway.settled()
    world.reply("Again")
    await world.ask(WIDGET, "Go on", conversation=conversation, tenant="patient")
    assert ("assistant", "I was saying more") in world.last_messages()


async def test_what_is_generated_after_a_client_left_is_counted_as_undelivered(
    world: World,
) -> None:
    before = await world.gateway.settled()
    gate = world.reply_in_two("First", " second")
    async with world.asking(WIDGET, "Hello", tenant="patient") as exchange:
        await shown(exchange, "First")
        await exchange.vanish()
        await world.noticed()
        gate.set()
        await world.upstream_is_alone()
    grown = (await world.gateway.settled()).since(before)
    assert grown.by("chatgw_undelivered_deltas_total", "dialect") == Counter(widget=1)


async def test_a_client_that_leaves_before_the_closing_bracket_had_all_of_its_turn(
    world: World,
) -> None:
    before = await world.gateway.settled()
    for protocol in PROTOCOLS:
        world.reply("Done.")
        async with world.asking(HYPERLEAP, "Hello", protocol=protocol) as exchange:
            await shown(exchange, '"finish_reason":"stop"')
            await exchange.vanish()
    grown = (await world.gateway.settled()).since(before)
    assert grown.by("chatgw_turns_total", "outcome") == Counter(ok=len(PROTOCOLS))
