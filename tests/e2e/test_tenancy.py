import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.config import token_of
from tests.e2e.routes import HELPER, MAIN, Chat, credential_field
from tests.e2e.wire import Answer, Request
from tests.e2e.world import World, open_world

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What reads a conversation beside the chat routes, by the id in the path.
READING = {
    "hyponema": "/sessions/{id}",
    "hyperleap": "/conversations/{id}",
    "helper": "/api/chat/conversation/{id}",
}


def by_id(chat: Chat) -> str:
    return chat.id


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "sqlite", "valkey"])
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("tenancy")
    stores = {"memory": "memory:", "sqlite": f"sqlite:{directory / 'gateway.db'}"}
    store = stores.get(request.param) or request.getfixturevalue("valkey_url")
    async with open_world(directory, store=store) as opened:
        yield opened


async def owned(world: World, chat: Chat) -> str:
    """A conversation of tenant acme with one exchange."""
    conversation = await world.conversation(chat)
    world.reply("For acme alone.")
    assert (await world.ask(chat, "A secret", conversation=conversation)).status == 200
    return conversation


def seen(answer: Answer, name: str) -> tuple[int, list[tuple[str, str]], str]:
    fields = [field for field in answer.headers if field[0] not in ("x-request-id", "date")]
    return answer.status, fields, answer.text.replace(name, "ID")


@pytest.mark.parametrize("chat", MAIN, ids=by_id)
async def test_a_foreign_conversation_is_an_unknown_one_where_unknown_ones_are_refused(
    world: World, chat: Chat
) -> None:
    answers = []
    calls = world.calls + 1
    for conversation in (await owned(world, chat), uuid.uuid4().hex):
        request = chat.request(conversation, "Hello", tenant="strict")
        answers.append(seen(await world.send(request), conversation))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert world.calls == calls


@pytest.mark.parametrize("chat", [chat for chat in MAIN if chat is not HELPER], ids=by_id)
async def test_two_tenants_with_one_id_have_a_conversation_each(world: World, chat: Chat) -> None:
    conversation = await owned(world, chat)
    world.reply("For the other.")
    answer = await world.ask(chat, "Who am I?", conversation=conversation, tenant="other")
    assert "acme" not in answer.text
    assert world.last_messages() == [("user", "Who am I?")]
    world.reply("Still yours.")
    await world.ask(chat, "And me?", conversation=conversation)
    assert world.last_messages() == [
        ("user", "A secret"),
        ("assistant", "For acme alone."),
        ("user", "And me?"),
    ]


@pytest.mark.parametrize("chat", [chat for chat in MAIN if chat.dialect in READING], ids=by_id)
async def test_nobody_reads_a_foreign_conversation(world: World, chat: Chat) -> None:
    path = READING[chat.dialect]
    answers = []
    for conversation in (await owned(world, chat), uuid.uuid4().hex):
        field = credential_field(chat.dialect, "other")
        request = Request("GET", path.replace("{id}", conversation), (field,))
        answers.append(seen(await world.send(request), conversation))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


async def test_a_busy_conversation_is_not_seen_by_other_tenants(world: World) -> None:
    for chat in MAIN[:2]:
        conversation = await world.conversation(chat)
        gate = world.reply_in_two("First", ", second.")
        async with world.asking(chat, "Hello", conversation=conversation) as exchange:
            await exchange.part()
            world.reply("Not busy.")
            other = await world.ask(chat, "Hello", conversation=conversation, tenant="other")
            assert other.status == 200
            gate.set()
            while await exchange.part() is not None:
                pass


async def test_a_visitor_of_the_same_mailbox_is_refused(world: World) -> None:
    conversation = await owned(world, HELPER)
    calls = world.calls
    eve = f"Bearer {token_of('acme', 'eve@example.com')}"
    answer = await world.send(HELPER.request(conversation, "Hello", credential=eve))
    assert (answer.status, answer.json()) == (401, {"error": "Unauthorized"})
    assert world.calls == calls
