import pytest

from gateway.messages import KeptCall, PromptMessage
from gateway.upstreams.told import chat_messages, content_messages

LOOK = KeptCall("call_1", "look", '{"id":7}', '{"state":"sent"}')
NOW = KeptCall("call_2", "now", "{}", "noon")


def test_calls_and_their_results_in_chat_completions() -> None:
    assert chat_messages(PromptMessage("assistant", "", (LOOK, NOW))) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"id":7}'},
                },
                {
                    "id": "call_2",
                    "type": "function",
                    "function": {"name": "now", "arguments": "{}"},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": '{"state":"sent"}'},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
    ]
    told = chat_messages(PromptMessage("assistant", "Let me look.", (NOW,)))
    assert told[0]["content"] == "Let me look."


def test_calls_and_their_results_in_anthropics_messages() -> None:
    assert content_messages(PromptMessage("assistant", "Let me look.", (LOOK, NOW))) == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "call_1", "name": "look", "input": {"id": 7}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "call_1",
                    "content": '{"state":"sent"}',
                },
                {"type": "tool_result", "tool_use_id": "call_2", "content": "noon"},
            ],
        },
    ]


@pytest.mark.parametrize("arguments", ["", "[1]", '{"half', "7"])
def test_what_is_no_object_is_no_input(arguments: str) -> None:
    call = LOOK._replace(arguments=arguments)
    (told, _) = content_messages(PromptMessage("assistant", " ", (call,)))
    assert told["content"] == [{"type": "tool_use", "id": "call_1", "name": "look", "input": {}}]
