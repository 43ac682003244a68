import asyncio
import json
import re
from dataclasses import replace

import pytest

from tests.e2e.routes import ALL, HELPER, HYPERLEAP, MAIN, STREAMING, WIDGET, Chat
from tests.e2e.wire import Answer, shown, whole
from tests.e2e.world import PROTOCOLS, World, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

DELTAS = ("Good ", "morning", ",\n“", "Ωλ", " 🧑‍🚀", "日本", '語\t\\"', " مرحبا", "!")
TEXT = "".join(DELTAS)


def by_id(chat: Chat) -> str:
    return chat.id


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", ALL, ids=by_id)
async def test_a_reply_arrives_exactly_and_ends_once(
    world: World, chat: Chat, protocol: str
) -> None:
    world.reply(*DELTAS)
    answer = await world.ask(chat, "Hello", protocol=protocol)
    assert answer.status == 200
    assert answer.ended
    reader = read(chat, answer)
    assert reader.text == TEXT
    assert reader.terminals == ["ok"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_deltas_that_come_one_by_one_leave_one_by_one(
    world: World, chat: Chat, protocol: str
) -> None:
    words = ("One", "two", "three", "four")
    gates = world.reply_in_steps(*words)
    async with world.asking(chat, "Hello", protocol=protocol) as exchange:
        for word, gate in zip(words, gates, strict=True):
            await shown(exchange, word)
            gate.set()
        await whole(exchange)
    assert read(chat, exchange.answer).text == "Onetwothreefour"


@pytest.mark.parametrize("chat", [chat for chat in ALL if chat.one_shot], ids=by_id)
async def test_a_one_shot_route_declares_its_length(world: World, chat: Chat) -> None:
    world.reply(*DELTAS, apart=True)
    answer = await world.ask(chat, "Hello")
    assert int(answer.header("content-length")) == len(answer.body)


IDS = re.compile(
    rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    rb"|\b[a-z0-9]{32}\b"
    rb'|(?<="created":)\d+|(?<="latency_ms":)\d+|(?<="latencyMs":)\d+'
)


def faceless(answer: Answer) -> tuple[object, ...]:
    """An answer without its ids and its times."""
    fields = [field for field in answer.headers if field[0] not in {"date", "x-request-id"}]
    return (answer.status, fields, IDS.sub(b"*", answer.body))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "paths",
    [
        ("/v1/chat/stream", "/chat"),
        *(
            tuple(
                f"{prefix}/conversations/{{id}}/{word}" for prefix in ("", "/api") for word in words
            )
            for words in (
                ("chat-http2", "continue"),
                ("chat", "continue-sync"),
                ("chat-sse", "continue-sse"),
            )
        ),
    ],
    ids=lambda paths: paths[0],
)
async def test_an_alias_gives_the_same_bytes_apart_from_ids(
    world: World, paths: tuple[str, ...], protocol: str
) -> None:
    chats = [chat for chat in ALL if chat.path in paths and chat.accept is None]
    assert len(chats) == len(paths)
    seen = []
    for chat in chats:
        world.reply(*DELTAS)
        seen.append(faceless(await world.ask(chat, "Hello", protocol=protocol)))
    assert all(one == seen[0] for one in seen)


@pytest.mark.parametrize("chat", [chat for chat in ALL if chat.accept is None], ids=by_id)
async def test_a_slash_at_the_end_of_the_path_changes_nothing(world: World, chat: Chat) -> None:
    seen = []
    for path in (chat.path, f"{chat.path}/"):
        world.reply(*DELTAS)
        seen.append(faceless(await world.ask(replace(chat, path=path), "Hello")))
    assert (seen[0][0], seen[1]) == (200, seen[0])


@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_a_conversation_goes_on(world: World, chat: Chat) -> None:
    conversation = await world.conversation(chat)
    for question, reply in (("One?", "First."), ("Two?", "Second."), ("Three?", "Third.")):
        world.reply(reply)
        await world.ask(chat, question, conversation=conversation)
    assert world.last_messages() == [
        ("user", "One?"),
        ("assistant", "First."),
        ("user", "Two?"),
        ("assistant", "Second."),
        ("user", "Three?"),
    ]


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_two_conversations_stay_apart(world: World, chat: Chat) -> None:
    for question in ("Mine?", "Yours?"):
        world.reply("Yes.")
        await world.ask(chat, question, conversation=await world.conversation(chat))
    assert world.last_messages() == [("user", "Yours?")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_widget_that_parses_each_read_alone_understands_everything(
    world: World, protocol: str
) -> None:
    long = "x" * 9000 + "語" * 1000  # with every character escaped, just under one frame
    world.reply(*DELTAS, long, apart=True)
    answer = await world.ask(WIDGET, "Hello", protocol=protocol)
    shown = ""
    for part in answer.parts:
        # The vendor page's own loop: no decoder state and no rest of a line between two reads.
        for line in filter(str.strip, part.decode("utf-8", errors="strict").split("\n")):
            event = json.loads(line)
            shown += event.get("token", "")
    assert shown == TEXT + long


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_widget_record_fits_one_frame_whatever_the_model_says_at_once(
    world: World, protocol: str
) -> None:
    long = "語" * 20_000
    world.reply("a", long, apart=True)
    answer = await world.ask(WIDGET, "Hello", protocol=protocol)
    assert read(WIDGET, answer).text == "a" + long
    tokens = [line for line in answer.body.splitlines(keepends=True) if b'"token"' in line]
    assert len(tokens) > 8
    assert max(map(len, tokens)) < 16_384
    assert set(tokens) <= set(answer.parts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_hyperleap_client_that_parses_each_read_alone_understands_everything(
    world: World, protocol: str
) -> None:
    world.reply(*DELTAS, "語" * 2000, apart=True)
    answer = await world.ask(HYPERLEAP, "Hello", protocol=protocol)
    *items, end = answer.parts
    assert end == b"]"
    assert items[0][:1] == b"["
    assert {part[:1] for part in items[1:]} == {b","}
    shown = ""
    for part in items:
        assert len(part) < 16_384
        for item in json.loads("[" + part[1:].decode() + "]"):
            shown += item["choice"]["message"]["content"]
    assert shown == TEXT + "語" * 2000


async def test_every_part_of_a_data_stream_ends_its_line(world: World) -> None:
    world.reply(*DELTAS, apart=True)
    answer = await world.ask(HELPER, "Hello")
    assert all(part.endswith(b"\n") and b"\r" not in part for part in answer.parts)
    assert answer.body.isascii()


async def test_many_streams_share_one_connection_without_mixing(world: World) -> None:
    world.echo(20)
    connection = await world.h2()
    try:
        exchanges = []
        for number in range(20):
            chat = STREAMING[number % len(STREAMING)]
            request = chat.request(await world.conversation(chat), f"number {number}")
            exchanges.append((chat, number, await connection.send(request)))
        for chat, number, exchange in exchanges:
            while await exchange.part() is not None:
                pass
            assert read(chat, exchange.answer).text == f"You said: number {number}"
    finally:
        await connection.close()


async def test_requests_follow_one_another_on_a_kept_connection(world: World) -> None:
    connection = await world.h1()
    try:
        for number in range(5):
            world.reply(f"Reply {number}")
            exchange = await connection.send(WIDGET.request(f"kept-{number}", "Hello"))
            while await exchange.part() is not None:
                pass
            assert read(WIDGET, exchange.answer).text == f"Reply {number}"
    finally:
        await connection.close()


async def test_two_messages_to_one_widget_session_are_answered_in_order(world: World) -> None:
    gate = world.reply_in_two("First", " reply")
    conversation = await world.conversation(WIDGET)
    async with world.asking(WIDGET, "One?", conversation=conversation) as first:
        await first.head()
        world.reply("Second reply")
        second = asyncio.create_task(world.ask(WIDGET, "Two?", conversation=conversation))
        await asyncio.sleep(0.2)
        assert not second.done()
        gate.set()
        while await first.part() is not None:
            pass
        assert read(WIDGET, first.answer).text == "First reply"
        assert read(WIDGET, await second).text == "Second reply"
    assert world.last_messages() == [
        ("user", "One?"),
        ("assistant", "First reply"),
        ("user", "Two?"),
    ]
