import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.config import token_of
from tests.e2e.neighbours import SHOW, tell
from tests.e2e.routes import ALL, HELPER, HYPONEMA, MAIN, STREAMING, WIDGET, Chat
from tests.e2e.wire import Request, shown, whole
from tests.e2e.world import PROTOCOLS, World, open_world, read

pytestmark = pytest.mark.asyncio(loop_scope="module")


def by_id(chat: Chat) -> str:
    return chat.id


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("once")
    async with open_world(directory, store=f"sqlite:{directory / 'gateway.db'}") as opened:
        yield opened


def key() -> tuple[str, str]:
    return ("idempotency-key", uuid.uuid4().hex)


async def request_of(world: World, chat: Chat, text: str = "Hello") -> Request:
    return chat.request(await world.conversation(chat), text).plus(key())


@pytest.mark.parametrize("chat", ALL, ids=by_id)
async def test_the_same_request_gets_the_same_bytes_and_runs_nothing(
    world: World, chat: Chat
) -> None:
    request = await request_of(world, chat)
    world.reply("One, ", "two, ", "three 😀.", apart=True)
    first = await world.send(request)
    assert (first.status, read(chat, first).text) == (200, "One, two, three 😀.")
    calls = world.calls
    for protocol in PROTOCOLS:
        again = await world.send(request, protocol=protocol)
        assert (again.status, again.body) == (200, first.body)
        assert again.header("content-type") == first.header("content-type")
        assert again.header("idempotent-replayed") == "true"
    assert first.header("idempotent-replayed") == ""
    assert world.calls == calls


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_replayed_turn_is_once_in_the_history(world: World, chat: Chat) -> None:
    conversation = await world.conversation(chat)
    request = chat.request(conversation, "Hello").plus(key())
    world.reply("Hi.")
    await world.send(request)
    await world.send(request)
    world.reply("Fine.")
    await world.ask(chat, "How are you?", conversation=conversation)
    assert world.last_messages() == [
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "How are you?"),
    ]


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_another_body_under_the_key_is_a_conflict(world: World, chat: Chat) -> None:
    conversation = await world.conversation(chat)
    field = key()
    world.reply("Hi.")
    await world.send(chat.request(conversation, "Hello").plus(field))
    calls = world.calls
    for place in (conversation, await world.conversation(chat)):
        answer = await world.send(chat.request(place, "Something else").plus(field))
        assert answer.status == 409
    assert world.calls == calls


@pytest.mark.parametrize("chat", [chat for chat in MAIN if chat is not WIDGET], ids=by_id)
async def test_the_same_request_while_the_first_runs_is_a_conflict(
    world: World, chat: Chat
) -> None:
    request = await request_of(world, chat)
    gate = world.reply_in_two("First", ", second.")
    async with world.sending(request) as exchange:
        await exchange.part()
        assert (await world.send(request)).status == 409
        gate.set()
        first = await whole(exchange)
    again = await world.send(request)
    assert (again.status, again.body) == (200, first.body)


async def test_on_the_widget_the_same_request_waits_for_the_first_and_gets_its_reply(
    world: World,
) -> None:
    request = await request_of(world, WIDGET)
    gate = world.reply_in_two("First", ", second.")
    calls = world.calls
    async with world.sending(request) as exchange:
        await exchange.part()
        waiting = asyncio.create_task(world.send(request))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        gate.set()
        first = await whole(exchange)
        again = await waiting
    assert (again.status, again.body) == (200, first.body)
    assert world.calls == calls + 1


@pytest.mark.parametrize("chat", STREAMING, ids=by_id)
async def test_after_a_client_left_the_same_request_gets_what_was_shown(
    world: World, chat: Chat
) -> None:
    request = await request_of(world, chat)
    world.reply_in_two("First", " never")
    async with world.sending(request) as exchange:
        await shown(exchange, "First")
        await exchange.vanish()
        await world.upstream_is_alone()
    await world.gateway.settled()
    calls = world.calls
    again = read(chat, await world.send(request))
    assert again.text == "First"
    assert len(again.terminals) == 1
    assert again.terminals != ["ok"]
    assert world.calls == calls


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_turn_that_left_nothing_may_be_tried_again(world: World, chat: Chat) -> None:
    request = await request_of(world, chat)
    world.fail("bad-request")
    assert (await world.send(request)).status >= 500
    world.forget_replies()
    world.reply("Hi.")
    assert read(chat, await world.send(request)).text == "Hi."


async def test_a_failure_in_the_stream_is_replayed_with_its_end(world: World) -> None:
    for chat in STREAMING:
        request = await request_of(world, chat)
        world.fail("breaks-off")
        first = await world.send(request)
        again = await world.send(request)
        assert (again.status, again.body) == (first.status, first.body)


async def test_each_request_leaves_one_metrics_record(world: World) -> None:
    before = await world.gateway.settled()
    field = key()
    world.reply("Hi.")
    request = HYPONEMA.request(str(uuid.uuid4()), "Hello").plus(field)
    for _ in range(3):
        await world.send(request)
    await world.send(HYPONEMA.request(str(uuid.uuid4()), "Other").plus(field))
    grown = (await world.gateway.settled()).since(before)
    assert grown.by("chatgw_turns_total", "outcome") == Counter(ok=3)
    assert grown.by("chatgw_refused_total", "kind") == Counter(conflict=1)


async def test_a_key_counts_for_its_owner_only(world: World) -> None:
    field = key()
    for tenant in ("acme", "other"):
        for chat in MAIN:
            conversation = await world.conversation(chat, tenant=tenant)
            world.reply(f"For {tenant} on {chat.dialect}.")
            request = chat.request(conversation, "Hello", tenant=tenant).plus(field)
            assert read(chat, await world.send(request)).text == f"For {tenant} on {chat.dialect}."
    conversation = await world.conversation(HELPER)
    world.reply("Hi.")
    request = HELPER.request(conversation, "Hello").plus(key())
    await world.send(request)
    eve = f"Bearer {token_of('acme', 'eve@example.com')}"
    stolen = request.without("authorization").plus(("authorization", eve))
    assert (await world.send(stolen)).status == 401


@pytest.mark.parametrize("value", ["", "a b", "x" * 256])
async def test_a_malformed_key_is_refused_in_the_dialects_words(world: World, value: str) -> None:
    for chat in MAIN:
        request = chat.request(await world.conversation(chat), "Hello")
        assert (await world.send(request.plus(("idempotency-key", value)))).status == 400


async def test_a_repeated_message_id_alone_never_replays(world: World) -> None:
    slug = await world.conversation(HELPER)
    request = HELPER.request(slug, "Hello")
    for number in range(2):
        world.reply(f"Reply {number}")
        assert read(HELPER, await world.send(request)).text == f"Reply {number}"
    messages = (await tell(world, SHOW, slug))["messages"]
    assert isinstance(messages, list)
    ids = [message["id"] for message in messages]
    assert (len(ids), ids[0]) == (4, json.loads(request.body)["message"]["id"])
    assert len(set(ids)) == len(ids)


async def test_an_id_that_comes_again_is_known_however_little_the_model_is_shown(
    world: World,
) -> None:
    slug = await world.conversation(HELPER, tenant="forgetful")
    request = HELPER.request(slug, "Hello", tenant="forgetful")
    for asked in (request, HELPER.request(slug, "And now?", tenant="forgetful"), request):
        world.reply("Yes.")
        assert read(HELPER, await world.send(asked)).text == "Yes."
    assert [text for _, text in world.last_messages()] == ["And now?", "Yes.", "Hello"]
    messages = (await tell(world, SHOW, slug, tenant="forgetful"))["messages"]
    assert isinstance(messages, list)
    assert len({message["id"] for message in messages}) == len(messages) == 6


async def test_a_recorded_reply_outlives_the_process(tmp_path: Path) -> None:
    async with open_world(tmp_path, store=f"sqlite:{tmp_path / 'gateway.db'}") as world:
        request = await request_of(world, WIDGET)
        world.reply("Hi.")
        first = await world.send(request)
        await world.gateway.kill()
        await world.gateway.start()
        assert (await world.send(request)).body == first.body
