import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product

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


Asked = tuple[Chat, str]
"""A route and the version of HTTP to ask on."""


def by_id(chat: Chat) -> str:
    return chat.id


def check(chat: Chat, kind: str, answer: Answer) -> None:
    if chat.dialect in {"hyponema", "hyperleap"}:
        assert (answer.status, words(chat.dialect, answer)) == (STATUSES[kind], kind), chat.id
    else:
        assert (answer.status, words(chat.dialect, answer)) == (500, "Internal server error"), (
            chat.id
        )
    if answer.status == 503:
        assert int(answer.header("retry-after")) >= 1
    assert "sk-" not in answer.text
    assert "upstream says" not in answer.text


async def ask_at_once(world: World, asked: Iterable[Asked], text: str) -> list[Answer]:
    """The answers to the text on each of these routes, asked for at the same time."""
    return await asyncio.gather(
        *(world.ask(chat, text, protocol=protocol) for chat, protocol in asked)
    )


async def failed(world: World, fault: str, asked: Sequence[Asked]) -> tuple[str, list[Answer]]:
    """The error kind of a fault and what comes of it on each route, where the next turn is good."""
    (kind,) = {world.fail(fault) for _ in asked}
    answers = await ask_at_once(world, asked, "Hello")
    world.forget_replies()
    for _ in asked:
        world.reply("Better now")
    for (chat, _), answer in zip(asked, await ask_at_once(world, asked, "And now?"), strict=True):
        assert (answer.status, read(chat, answer).text) == (200, "Better now"), answer.text
    return kind, answers


@pytest.mark.parametrize("fault", BEFORE)
async def test_a_fault_before_the_first_word_is_a_status(brief_world: World, fault: str) -> None:
    kind, answers = await failed(brief_world, fault, [(chat, "h1") for chat in MAIN])
    for chat, answer in zip(MAIN, answers, strict=True):
        check(chat, kind, answer)


@pytest.mark.parametrize("fault", AFTER)
async def test_on_a_one_shot_route_every_fault_is_a_status(brief_world: World, fault: str) -> None:
    chats = [chat for chat in ALL if chat.one_shot]
    kind, answers = await failed(brief_world, fault, [(chat, "h1") for chat in chats])
    for chat, answer in zip(chats, answers, strict=True):
        check(chat, "upstream_error" if kind == "truncated" else kind, answer)


@pytest.mark.parametrize("fault", AFTER)
async def test_a_fault_in_the_middle_is_one_terminal_record(brief_world: World, fault: str) -> None:
    asked = list(product(STREAMING, PROTOCOLS))
    _, answers = await failed(brief_world, fault, asked)
    for (chat, protocol), answer in zip(asked, answers, strict=True):
        where = (chat.id, protocol, answer.text)
        assert answer.status == 200, where
        assert answer.ended, where
        reader = read(chat, answer)
        assert reader.terminals == ["error"], where
        assert reader.text == HALF, where
        assert "upstream says" not in answer.text, where


async def test_every_fault_is_counted_once_as_what_it_is(brief_world: World) -> None:
    before = await brief_world.gateway.settled()
    expected: Counter[str] = Counter()
    for fault in AFTER:
        for _ in STREAMING:
            expected[brief_world.fail(fault)] += 1
        await ask_at_once(brief_world, [(chat, "h1") for chat in STREAMING], "Hello")
    brief_world.reply("Fine")
    expected["ok"] += 1
    await brief_world.ask(WIDGET, "Hello")
    grown = (await brief_world.gateway.settled()).since(before)
    assert grown.by("chatgw_turns_total", "outcome") == expected


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


async def test_a_reply_that_drips_is_cut_by_the_turns_own_clock(brief_world: World) -> None:
    drop: tuple[Step, ...] = (openai_chunk({"content": "x"}), Sleep(0.2))
    chats = (WIDGET, HELPER_UI)
    for _ in chats:
        brief_world.play(*drop * 100)
    answers = await ask_at_once(brief_world, [(chat, "h1") for chat in chats], "Hello")
    for chat, answer in zip(chats, answers, strict=True):
        assert answer.ended
        assert read(chat, answer).terminals == ["error"], chat.id
    await brief_world.upstream_is_alone()
