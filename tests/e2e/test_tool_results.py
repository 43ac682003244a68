"""Tools that a client runs itself: it posts the assistant's message again, with their results."""

import json
from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.neighbours import SHOW, tell
from tests.e2e.routes import HELPER, HELPER_UI, Chat
from tests.e2e.wire import Answer
from tests.e2e.world import PROTOCOLS, World, read
from tests.model_streams import openai_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARGUMENTS: Final = '{"city":"Zürich"}'
CALL: Final = ("call_1", "forecast", ARGUMENTS)
SUNNY: Final = {"sky": "sunny"}
Told = Callable[..., dict[str, object]]


def kept_by_4(*call_ids: str) -> dict[str, object]:
    """The message as AI SDK 4 keeps it, with a result for each call."""
    done = [
        {
            "state": "result",
            "toolCallId": call_id,
            "toolName": "forecast",
            "args": {"city": "Zürich"},
            "result": SUNNY,
        }
        for call_id in call_ids
    ]
    parts = [{"type": "tool-invocation", "toolInvocation": call} for call in done]
    return {"content": "Let me look. ", "parts": parts, "toolInvocations": done}


def kept_by_5(*call_ids: str) -> dict[str, object]:
    """The same message as AI SDK 5 and later keep it."""
    return {
        "parts": [
            {"type": "step-start"},
            {"type": "text", "text": "Let me look. ", "state": "done"},
            *(
                {
                    "type": "tool-forecast",
                    "state": "output-available",
                    "toolCallId": call_id,
                    "input": {"city": "Zürich"},
                    "output": SUNNY,
                }
                for call_id in call_ids
            ),
        ]
    }


VERSIONS: Final = [
    pytest.param(HELPER, kept_by_4, id="data-stream"),
    pytest.param(HELPER_UI, kept_by_5, id="ui-message-stream"),
]


async def ask_for_a_call(world: World, chat: Chat) -> str:
    """A conversation whose newest reply has left a call to the client."""
    conversation = await world.conversation(chat)
    world.play(*openai_stream(["Let me look. "], finish="tool_calls", calls=[CALL]))
    assert (await world.ask(chat, "And now?", conversation=conversation)).status == 200
    return conversation


async def post(
    world: World, chat: Chat, conversation: str, message: dict[str, object], protocol: str = "h1"
) -> Answer:
    whole = {"id": "shown-1", "role": "assistant", **message}
    body = json.dumps({"message": whole, "conversationSlug": conversation}).encode()
    return await world.send(chat.request(conversation, "").carrying(body), protocol=protocol)


def last_call(world: World) -> list[dict[str, object]]:
    messages = world.upstream.requests[-1].json["messages"]
    assert isinstance(messages, list)
    return messages


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("chat", "posted"), VERSIONS)
async def test_the_model_is_told_what_its_tools_gave(
    world: World, chat: Chat, posted: Told, protocol: str
) -> None:
    conversation = await ask_for_a_call(world, chat)
    world.reply("It is sunny.")
    answer = await post(world, chat, conversation, posted("call_1"), protocol)
    assert read(chat, answer).text == "It is sunny."
    function = {"name": "forecast", "arguments": ARGUMENTS}
    assert last_call(world) == [
        {"role": "user", "content": "And now?"},
        {
            "role": "assistant",
            "content": "Let me look. ",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"sky":"sunny"}'},
    ]


@pytest.mark.parametrize(("chat", "posted"), VERSIONS)
async def test_the_reply_follows_the_one_with_the_call(
    world: World, chat: Chat, posted: Told
) -> None:
    conversation = await ask_for_a_call(world, chat)
    world.reply("It is sunny.")
    await post(world, chat, conversation, posted("call_1"))
    shown = await tell(world, SHOW, conversation)
    messages = shown["messages"]
    assert isinstance(messages, list)
    said = ["And now?", "Let me look. ", "It is sunny."]
    assert [message["content"] for message in messages] == said
    world.reply("You are welcome.")
    await world.ask(chat, "Thanks", conversation=conversation)
    assert world.last_messages() == [
        ("user", "And now?"),
        ("assistant", "Let me look. \n\nIt is sunny."),
        ("user", "Thanks"),
    ]


@pytest.mark.parametrize(("chat", "posted"), VERSIONS)
async def test_a_tool_may_be_called_after_a_tool(world: World, chat: Chat, posted: Told) -> None:
    conversation = await ask_for_a_call(world, chat)
    world.play(*openai_stream([], finish="tool_calls", calls=[("call_2", "map", "{}")]))
    await post(world, chat, conversation, posted("call_1"))
    world.reply("Here.")
    answer = await post(world, chat, conversation, posted("call_1", "call_2"))
    assert read(chat, answer).text == "Here."
    roles = [message["role"] for message in last_call(world)]
    assert roles == ["user", "assistant", "tool", "assistant", "tool"]


@pytest.mark.parametrize(("chat", "posted"), VERSIONS)
async def test_a_result_that_nobody_waits_for_is_not_told(
    world: World, chat: Chat, posted: Told
) -> None:
    conversation = await ask_for_a_call(world, chat)
    world.reply("Hm.")
    await post(world, chat, conversation, posted("call_9"))
    assert [message["role"] for message in last_call(world)] == ["user", "assistant", "assistant"]


@pytest.mark.parametrize(("chat", "posted"), VERSIONS)
async def test_results_may_be_posted_again_after_a_failure(
    world: World, chat: Chat, posted: Told
) -> None:
    conversation = await ask_for_a_call(world, chat)
    world.fail("fault")
    assert (await post(world, chat, conversation, posted("call_1"))).status == 500
    world.forget_replies()
    world.reply("It is sunny.")
    answer = await post(world, chat, conversation, posted("call_1"))
    assert read(chat, answer).text == "It is sunny."
    assert last_call(world)[-1]["role"] == "tool"


@pytest.mark.parametrize(("chat", "posted"), VERSIONS)
async def test_a_reply_to_results_that_broke_off_is_begun_anew(
    world: World, chat: Chat, posted: Told
) -> None:
    conversation = await ask_for_a_call(world, chat)
    world.fail("breaks-off")
    broken = await post(world, chat, conversation, posted("call_1"))
    assert read(chat, broken).terminals == ["error"]
    world.reply("It is sunny.")
    answer = await post(world, chat, conversation, posted("call_1"))
    assert read(chat, answer).text == "It is sunny."
    assert [message["role"] for message in last_call(world)] == ["user", "assistant", "tool"]
