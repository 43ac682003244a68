import pytest

from gateway.dialects.helper_results import tool_results

DONE = {"toolName": "look", "args": {}, "toolCallId": "c1", "state": "result", "result": "sent"}


@pytest.mark.parametrize(
    "message",
    [
        {"toolInvocations": [DONE]},
        {"parts": [{"type": "step-start"}, {"type": "tool-invocation", "toolInvocation": DONE}]},
        {"toolInvocations": [DONE], "parts": [{"toolInvocation": DONE}]},
        {
            "parts": [
                {
                    "type": "tool-look",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "input": {},
                    "output": "sent",
                }
            ]
        },
        {
            "parts": [
                {
                    "type": "dynamic-tool",
                    "toolName": "look",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "output": "sent",
                }
            ]
        },
    ],
)
def test_every_version_of_the_sdk_has_its_place_for_a_result(message: dict[str, object]) -> None:
    assert tool_results(message) == {"c1": "sent"}


@pytest.mark.parametrize(
    ("part", "result"),
    [
        ({"state": "result", "result": {"weather": "sunny, 21 °C"}}, '{"weather":"sunny, 21 °C"}'),
        ({"state": "result", "result": ""}, ""),
        ({"state": "result"}, "null"),
        ({"state": "output-available", "output": [1, None]}, "[1,null]"),
        ({"state": "output-available", "output": "a\0b"}, "a\ufffdb"),
        ({"state": "output-error", "errorText": "offline"}, '{"error":"offline"}'),
    ],
)
def test_a_result_is_json_or_the_string_that_it_is(part: dict[str, object], result: str) -> None:
    assert tool_results({"parts": [{"toolCallId": "c1", **part}]}) == {"c1": result}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"toolInvocations": None, "parts": None},
        {"toolInvocations": "x", "parts": {"toolCallId": "c1"}},
        {"parts": [None, 7, {"type": "text", "text": "hi"}, {"toolInvocation": 7}]},
        {"parts": [{"toolCallId": "c1", "state": "input-available", "input": {}}]},
        {"parts": [{"toolCallId": "c1", "state": ["result"], "result": 1}]},
        {"parts": [{"toolCallId": 7, "state": "result", "result": 1}]},
        {"toolInvocations": [{"toolCallId": "c1", "state": "call", "args": {}}]},
    ],
)
def test_what_is_no_result_is_passed_over(message: dict[str, object]) -> None:
    assert tool_results(message) == {}
