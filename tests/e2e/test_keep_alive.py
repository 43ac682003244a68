import asyncio

import pytest

from tests.e2e.routes import ALL, HELPER, HELPER_UI, HYPERLEAP, HYPONEMA, STREAMING, WIDGET, Chat
from tests.e2e.world import PROTOCOLS, World, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The bytes of one keep-alive, from each format's own rules for what a reader passes over.
MARKS = {
    HYPONEMA: b": keep-alive\n\n",
    HYPERLEAP: b"\n",
    WIDGET: b"\n",
    HELPER: b"\n",
    HELPER_UI: b": keep-alive\n\n",
}


def by_id(chat: Chat) -> str:
    return chat.id


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_silence_before_the_first_word_is_kept_alive(
    restless_world: World, chat: Chat, protocol: str
) -> None:
    world = restless_world
    gate = world.reply_in_two("", "At last")
    async with world.asking(chat, "Hello", protocol=protocol) as exchange:
        await exchange.head()  # it comes with the first keep-alive: nothing was generated yet
        assert exchange.answer.status == 200
        for _ in range(3):
            assert await exchange.part() is not None
        assert b"At last" not in exchange.answer.body
        gate.set()
        while await exchange.part() is not None:
            pass
        reader = read(chat, exchange.answer)
        assert (reader.text, reader.terminals) == ("At last", ["ok"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_silence_in_the_middle_is_kept_alive(
    restless_world: World, chat: Chat, protocol: str
) -> None:
    world = restless_world
    gate = world.reply_in_two("First", " second")
    async with world.asking(chat, "Hello", protocol=protocol) as exchange:
        while b"First" not in exchange.answer.body:
            assert await exchange.part() is not None
        marks = [await exchange.part() for _ in range(3)]
        assert marks == [MARKS[chat]] * 3
        gate.set()
        while await exchange.part() is not None:
            pass
        reader = read(chat, exchange.answer)
        assert (reader.text, reader.terminals) == ("First second", ["ok"])


@pytest.mark.parametrize("chat", [chat for chat in ALL if chat.one_shot], ids=by_id)
async def test_a_one_shot_route_is_silent_until_the_end(restless_world: World, chat: Chat) -> None:
    gate = restless_world.reply_in_two("First", " second")
    asked = asyncio.create_task(restless_world.ask(chat, "Hello"))
    await asyncio.sleep(0.6)
    assert not asked.done()
    gate.set()
    answer = await asked
    assert read(chat, answer).text == "First second"
    assert not answer.body.startswith(b"\n")
