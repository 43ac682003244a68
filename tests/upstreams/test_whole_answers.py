import json
from typing import Final

import pytest

from gateway.errors import UpstreamProtocolError
from gateway.ports.codecs import Upstream
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.openai import OpenAI
from tests.upstreams.corpus import Row, decode

COMPLETION: Final[dict[str, object]] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello",
                "reasoning_content": "Hm",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
                "annotations": [{"url_citation": {"url": "https://a.example/", "title": "A"}}],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
COMPLETION_ROWS: Final = [
    {"event": "ReasoningDelta", "text": "Hm"},
    {"event": "TextDelta", "text": "Hello"},
    {"event": "ToolCallStarted", "call_id": "a", "name": "f"},
    {"event": "ToolCallDelta", "call_id": "a", "arguments": "{}"},
    {"event": "ToolCallStarted", "call_id": "b", "name": "g"},
    {
        "event": "CitationFound",
        "index": "1",
        "link": "https://a.example/",
        "source_name": "A",
        "cited_text": None,
    },
    {"event": "ToolCallEnded", "call_id": "a", "name": "f", "arguments": "{}"},
    {"event": "ToolCallEnded", "call_id": "b", "name": "g", "arguments": "{}"},
    {
        "event": "ModelFinished",
        "reason": "tool_calls",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
]

MESSAGE: Final[dict[str, object]] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [
        {"type": "thinking", "thinking": "Hm", "signature": "x"},
        {
            "type": "text",
            "text": "Hello",
            "citations": [{"type": "char_location", "document_title": "D", "cited_text": "c"}],
        },
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 4},
}
MESSAGE_ROWS: Final = [
    {"event": "ReasoningDelta", "text": "Hm"},
    {"event": "TextDelta", "text": "Hello"},
    {
        "event": "CitationFound",
        "index": "1",
        "link": None,
        "source_name": "D",
        "cited_text": "c",
    },
    {"event": "ToolCallStarted", "call_id": "toolu_1", "name": "f"},
    {"event": "ToolCallDelta", "call_id": "toolu_1", "arguments": '{"a":1}'},
    {"event": "ToolCallEnded", "call_id": "toolu_1", "name": "f", "arguments": '{"a":1}'},
    {"event": "ToolCallStarted", "call_id": "toolu_2", "name": "g"},
    {"event": "ToolCallEnded", "call_id": "toolu_2", "name": "g", "arguments": "{}"},
    {
        "event": "ModelFinished",
        "reason": "tool_calls",
        "usage": {"input_tokens": 5, "output_tokens": 4},
    },
]
BOTH: Final = [(OpenAI(), COMPLETION, COMPLETION_ROWS), (Anthropic(), MESSAGE, MESSAGE_ROWS)]


def whole(codec: Upstream, document: object) -> list[Row]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode(codec.decoder("application/json; charset=utf-8"), [data[:7], data[7:]])


@pytest.mark.parametrize(("codec", "document", "rows"), BOTH)
def test_a_whole_answer_means_the_events_of_a_stream(
    codec: Upstream, document: dict[str, object], rows: list[Row]
) -> None:
    assert whole(codec, document) == rows


@pytest.mark.parametrize(("codec", "document", "rows"), BOTH)
def test_a_whole_answer_cut_off_anywhere_is_never_good(
    codec: Upstream, document: dict[str, object], rows: list[Row]
) -> None:
    data = json.dumps(document).encode()
    for place in range(len(data)):
        assert whole(codec, data[:place]) == [{"error": "Truncated"}], place
    assert whole(codec, data) == rows


@pytest.mark.parametrize(
    ("codec", "document", "error"),
    [
        (OpenAI(), {"error": {"message": "x", "type": "server_error"}}, "UpstreamError"),
        (OpenAI(), {"error": "x"}, "UpstreamError"),
        (OpenAI(), {"choices": []}, "UpstreamProtocolError"),
        (OpenAI(), {}, "UpstreamProtocolError"),
        (OpenAI(), [], "Truncated"),
        (OpenAI(), b"<html>", "Truncated"),
        (
            Anthropic(),
            {"type": "error", "error": {"type": "overloaded_error"}},
            "UpstreamUnavailable",
        ),
        (Anthropic(), {"type": "message", "content": "text"}, "UpstreamProtocolError"),
        (Anthropic(), {"type": "message", "content": ["text"]}, "UpstreamProtocolError"),
        (Anthropic(), {"content": [{"type": "text", "citations": 7}]}, "UpstreamProtocolError"),
        (Anthropic(), {}, "UpstreamProtocolError"),
        (Anthropic(), b"", "Truncated"),
    ],
)
def test_a_whole_answer_that_is_none_is_an_error(
    codec: Upstream, document: object, error: str
) -> None:
    assert whole(codec, document) == [{"error": error}]


def test_a_whole_answer_without_a_reason_is_finished_otherwise() -> None:
    answer = {"choices": [{"message": {"content": "a"}}]}
    assert whole(OpenAI(), answer)[-1] == {
        "event": "ModelFinished",
        "reason": "other",
        "usage": None,
    }


def test_a_whole_answer_has_a_limit() -> None:
    decoder = OpenAI().decoder("application/json")
    decoder.feed(b" " * (4 * 1024 * 1024))
    with pytest.raises(UpstreamProtocolError, match="4194304"):
        decoder.feed(b" ")
