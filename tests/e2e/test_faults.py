import json
from collections import Counter

import pytest

from tests.e2e.faults import AFTER, BEFORE, HALF
from tests.e2e.refusals import words
from tests.e2e.routes import ALL, HELPER_UI, MAIN, STREAMING, WIDGET, Chat
from tests.e2e.wire import Answer
from tests.e2e.world import PROTOCOLS, World, read
from tests.model_streams import openai_chunk
from tests.upstream import Sleep, Step

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Error kind -> status and word on hyponema and hyperleap; the others say the same to all of them.
STATUSES = {
    "upstream_error": 502,
    "upstream_rate_limited": 503,
    "upstream_unavailable": 503,
    "upstream_timeout": 504,
}


def by_id(chat: Chat) -> str:
    return chat.id


def check(chat: Chat, kind: str, answer: Answer) -> None:
    if chat.dialect in {"hyponema", "hyperleap"}:
        assert (answer.status, words(chat.dialect, answer)) == (STATUSES[kind], kind)
    else:
        assert (answer.status, words(chat.dialect, answer)) == (500, "Internal server error")
    if answer.status == 503:
        assert int(answer.header("retry-after")) >= 1
    assert "sk-" not in answer.text
    assert "upstream says" not in answer.text


async def works(world: World, chat: Chat) -> None:
    """The next turn is a good one, whatever the last one was."""
    world.forget_replies()
    world.reply("Better now")
    answer = await world.ask(chat, "And now?")
    assert (answer.status, read(chat, answer).text) == (200, "Better now"), answer.text


@pytest.mark.parametrize("fault", BEFORE)
@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_fault_before_the_first_word_is_a_status(
    brief_world: World, chat: Chat, fault: str
) -> None:
    kind = brief_world.fail(fault)
    check(chat, kind, await brief_world.ask(chat, "Hello"))
    await works(brief_world, chat)


@pytest.mark.parametrize("chat", [chat for chat in ALL if chat.one_shot], ids=by_id)
@pytest.mark.parametrize("fault", AFTER)
async def test_on_a_one_shot_route_every_fault_is_a_status(
    brief_world: World, chat: Chat, fault: str
) -> None:
    kind = brief_world.fail(fault)
    answer = await brief_world.ask(chat, "Hello")
    check(chat, "upstream_error" if kind == "truncated" else kind, answer)
    await works(brief_world, chat)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_fault_in_the_middle_is_one_terminal_record(
    brief_world: World, chat: Chat, fault: str, protocol: str
) -> None:
    brief_world.fail(fault)
    answer = await brief_world.ask(chat, "Hello", protocol=protocol)
    assert answer.status == 200
    assert answer.ended
    reader = read(chat, answer)
    assert reader.terminals == ["error"]
    assert reader.text == HALF
    assert "upstream says" not in answer.text
    await works(brief_world, chat)


async def test_every_fault_is_counted_once_as_what_it_is(brief_world: World) -> None:
    gateway = brief_world.gateway
    before = await gateway.by("chatgw_turns_total", "outcome")
    expected: Counter[str] = Counter()
    for chat in STREAMING:
        for fault in AFTER:
            expected[brief_world.fail(fault)] += 1
            await brief_world.ask(chat, "Hello")
        brief_world.reply("Fine")
        expected["ok"] += 1
        await brief_world.ask(chat, "Hello")
    await gateway.eventually("chatgw_turns_total", sum(before.values()) + expected.total())
    after = await gateway.by("chatgw_turns_total", "outcome")
    assert Counter({kind: after[kind] - before[kind] for kind in after}) == expected
    assert await gateway.total("chatgw_turns_in_flight") == 0


@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_half_a_reply_is_remembered(brief_world: World, chat: Chat) -> None:
    conversation = await brief_world.conversation(chat)
    brief_world.fail("breaks-off")
    await brief_world.ask(chat, "Hello", conversation=conversation)
    brief_world.reply("Fine")
    await brief_world.ask(chat, "Go on", conversation=conversation)
    assert brief_world.last_messages() == [
        ("user", "Hello"),
        ("assistant", HALF),
        ("user", "Go on"),
    ]


@pytest.mark.parametrize("chat", ALL, ids=by_id)
async def test_an_upstream_that_is_not_there(brief_world: World, chat: Chat) -> None:
    answer = await brief_world.ask(chat, "Hello", tenant="cut_off")
    check(chat, "upstream_unavailable", answer)


async def test_a_reply_that_never_ends_is_cut(brief_world: World) -> None:
    brief_world.play(*[openai_chunk({"content": "x" * 1000})] * 1000)
    answer = await brief_world.ask(WIDGET, "Hello")
    assert answer.ended
    assert len(answer.body) < 2_000_000
    assert json.loads(answer.body.splitlines()[-1])["type"] == "error"
    await brief_world.upstream_is_alone()


@pytest.mark.parametrize("chat", [WIDGET, HELPER_UI], ids=by_id)
async def test_a_reply_that_drips_is_cut_by_the_turns_own_clock(
    brief_world: World, chat: Chat
) -> None:
    drop: tuple[Step, ...] = (openai_chunk({"content": "x"}), Sleep(0.2))
    brief_world.play(*drop * 100)
    answer = await brief_world.ask(chat, "Hello")
    assert answer.ended
    assert read(chat, answer).terminals == ["error"]
    await brief_world.upstream_is_alone()
