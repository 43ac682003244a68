import json

import pytest

from gateway.errors import ErrorKind, UpstreamProtocolError
from gateway.events import ModelFinished, TextDelta
from gateway.messages import Headers, Prompt, PromptMessage, ToolSpec, Usage
from gateway.upstreams.anthropic import Anthropic
from tests.model_streams import anthropic_stream

HELLO = Prompt("some-model", "", (PromptMessage("user", "hi"),))


def body(prompt: Prompt, codec: Anthropic | None = None) -> dict[str, object]:
    request = (codec or Anthropic()).encode_request(prompt)
    members = json.loads(request.body)
    assert isinstance(members, dict)
    return members


def test_a_plain_prompt_has_a_limit_though_none_was_set() -> None:
    assert body(HELLO) == {
        "model": "some-model",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
    assert body(HELLO, Anthropic(max_tokens=64))["max_tokens"] == 64


def test_a_full_prompt_has_every_member() -> None:
    prompt = Prompt(
        "some-model",
        "Be brief.",
        (
            PromptMessage("user", "hi"),
            PromptMessage("assistant", "Hello"),
            PromptMessage("system", "Be kind."),
            PromptMessage("user", "bye"),
        ),
        max_tokens=50,
        temperature=0.5,
        stop=("END",),
        tools=(ToolSpec("look", "Looks.", {"type": "object"}),),
    )
    assert body(prompt) == {
        "model": "some-model",
        "max_tokens": 50,
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "bye"},
        ],
        "stream": True,
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "tools": [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
    }


def test_the_call_goes_to_messages_with_a_key_and_a_version() -> None:
    codec = Anthropic(
        api_key="sk-1", extra_headers={"Anthropic-Beta": "b"}, extra_body={"top_k": 5}
    )
    request = codec.encode_request(HELLO)
    assert request.path == "/v1/messages"
    assert dict(request.headers) == {
        "accept": "text/event-stream",
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": "sk-1",
        "anthropic-beta": "b",
    }
    assert body(HELLO, codec)["top_k"] == 5
    assert "x-api-key" not in dict(Anthropic().encode_request(HELLO).headers)


def test_a_stream_is_decoded() -> None:
    stream = b"".join(anthropic_stream(["Hel", "lo"]))
    assert Anthropic().decoder("text/event-stream; charset=utf-8").feed(stream) == [
        TextDelta("Hel"),
        TextDelta("lo"),
        ModelFinished("stop", Usage(12, 3)),
    ]
    with pytest.raises(UpstreamProtocolError):
        Anthropic().decoder("text/html")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"type": "invalid_request_error", "message": "x"}, "upstream_error"),
        (
            400,
            {
                "type": "invalid_request_error",
                "message": "prompt is too long: 208310 tokens > 200000 maximum",
            },
            "context_length",
        ),
        (401, {"type": "authentication_error"}, "upstream_error"),
        (413, {"type": "request_too_large"}, "context_length"),
        (429, {"type": "rate_limit_error"}, "upstream_rate_limited"),
        (500, {"type": "api_error"}, "upstream_error"),
        (504, {"type": "timeout_error"}, "upstream_timeout"),
        (529, {"type": "overloaded_error"}, "upstream_unavailable"),
    ],
)
def test_a_refusal_is_told_by_its_status_and_type(
    status: int, error: dict[str, object], kind: ErrorKind
) -> None:
    data = json.dumps({"type": "error", "error": error}).encode()
    found = Anthropic().decode_error(status, Headers((("retry-after", "7"),)), data)
    assert found.kind == kind
    assert "tokens" not in str(found)
