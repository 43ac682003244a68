import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    ErrorKind,
    Truncated,
    UpstreamDenied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.events import (
    CitationFound,
    ModelFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
)
from gateway.messages import Headers, Prompt, PromptMessage, ToolSpec, Usage
from gateway.upstreams.openai import OpenAI
from tests.model_streams import openai_chunk, openai_stream, sse

HELLO = Prompt("some-model", "", (PromptMessage("user", "hi"),))


def body(prompt: Prompt, codec: OpenAI | None = None) -> dict[str, object]:
    request = (codec or OpenAI()).encode_request(prompt)
    members = json.loads(request.body)
    assert isinstance(members, dict)
    return members


def test_a_plain_prompt_asks_for_a_stream_with_usage_and_nothing_else() -> None:
    assert body(HELLO) == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_full_prompt_has_every_member() -> None:
    prompt = Prompt(
        "some-model",
        "Be brief.",
        (
            PromptMessage("user", "hi"),
            PromptMessage("assistant", "Hello – 你"),
            PromptMessage("user", ""),
        ),
        max_tokens=50,
        temperature=0.0,
        stop=("END",),
        tools=(ToolSpec("look", "Looks.", {"type": "object", "properties": {}}),),
    )
    members = body(prompt)
    assert members["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello – 你"},
        {"role": "user", "content": ""},
    ]
    assert members["max_tokens"] == 50
    assert members["temperature"] == 0.0
    assert members["stop"] == ["END"]
    assert members["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


def test_settings_that_are_read_only_have_a_json_form_too() -> None:
    parameters = MappingProxyType({"type": "object", "properties": MappingProxyType({})})
    tools = body(Prompt("m", "", (), tools=(ToolSpec("f", "", parameters),)))["tools"]
    assert json.dumps(tools).endswith('"parameters": {"type": "object", "properties": {}}}}]')
    with pytest.raises(TypeError):
        body(HELLO, OpenAI(extra_body={"a": {1, 2}}))


def test_the_call_goes_to_chat_completions_with_a_bearer_key() -> None:
    request = OpenAI(api_key="sk-1").encode_request(HELLO)
    assert request.path == "/chat/completions"
    assert dict(request.headers) == {
        "accept": "text/event-stream",
        "content-type": "application/json",
        "authorization": "Bearer sk-1",
    }
    assert "authorization" not in dict(OpenAI().encode_request(HELLO).headers)


def test_extra_members_replace_and_null_removes() -> None:
    codec = OpenAI(
        extra_body={"stream_options": None, "model": "other", "metadata": {"a": [1]}},
        extra_headers={"Authorization": "Basic x", "X-Org": "o"},
        max_tokens_field="max_completion_tokens",
    )
    members = body(Prompt("m", "", (), max_tokens=5), codec)
    assert members == {
        "model": "other",
        "messages": [],
        "stream": True,
        "max_completion_tokens": 5,
        "metadata": {"a": [1]},
    }
    headers = dict(codec.encode_request(HELLO).headers)
    assert headers["authorization"] == "Basic x"
    assert headers["x-org"] == "o"


@pytest.mark.parametrize(
    "content_type",
    ["text/event-stream", "text/event-stream; charset=utf-8", "TEXT/Event-Stream", ""],
)
def test_a_stream_is_taken_for_one(content_type: str) -> None:
    stream = b"".join(openai_stream(["Hel", "lo"]))
    assert OpenAI().decoder(content_type).feed(stream) == [
        TextDelta("Hel"),
        TextDelta("lo"),
        ModelFinished("stop", Usage(12, 3)),
    ]


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/plain", "application/octet-stream", "x"]
)
def test_another_type_is_refused(content_type: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        OpenAI().decoder(content_type)


def test_an_error_behind_text_of_the_same_read_comes_with_the_next_call() -> None:
    decoder = OpenAI().decoder("text/event-stream")
    assert decoder.feed(openai_chunk({"content": "a"}) + b"data: {]\n\n") == [TextDelta("a")]
    with pytest.raises(UpstreamProtocolError, match="event 2 at byte 1"):
        decoder.feed(b"")
    with pytest.raises(UpstreamProtocolError):
        decoder.close()


def test_an_error_of_the_end_behind_text_comes_with_the_next_close() -> None:
    decoder = OpenAI().decoder("text/event-stream")
    assert decoder.feed(openai_chunk({"content": "a"})[:-2]) == []
    assert decoder.close() == [TextDelta("a")]
    with pytest.raises(Truncated):
        decoder.close()


def test_a_limit_that_is_passed_behind_text_comes_with_the_next_call() -> None:
    decoder = OpenAI().decoder("text/event-stream")
    chunk = openai_chunk({"content": "a"}) + b"data: " + b"x" * 300_000
    assert decoder.feed(chunk) == [TextDelta("a")]
    with pytest.raises(UpstreamProtocolError, match="line"):
        decoder.feed(b"")


def test_json_that_is_nested_too_deeply_is_an_error_of_the_upstream() -> None:
    deep = b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(UpstreamProtocolError):
        OpenAI().decoder("text/event-stream").feed(b"data: " + deep + b"\n\n")


def test_arguments_as_a_deep_object_are_no_fault_of_ours() -> None:
    deep = '{"a":' * 400 + "{}" + "}" * 400
    call = '{"index":0,"id":"c","function":{"name":"f","arguments":' + deep + "}}"
    chunk = '{"choices":[{"delta":{"tool_calls":[' + call + "]}}]}"
    events = OpenAI().decoder("").feed(sse(chunk.encode()))
    assert events == [ToolCallStarted("c", "f"), ToolCallDelta("c", deep)]


RETRY = Headers((("retry-after", "7"),))
NOW = ("date", "Wed, 21 Oct 2026 07:28:00 GMT")


def test_what_is_made_up_is_unique_in_the_turn() -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    note = {"type": "url_citation", "url_citation": {"url": "https://x", "title": "X"}}
    chunk = openai_chunk({"tool_calls": [call], "annotations": [note]}, id="")
    ids, indexes = [], []
    for number in range(3):
        decoder = OpenAI().decoder("", rounds=number, citations=number)
        for event in decoder.feed(chunk):
            if isinstance(event, ToolCallStarted):
                ids.append(event.call_id)
            elif isinstance(event, CitationFound):
                indexes.append(event.index)
    assert ids == ["call-0", "call-1-0", "call-2-0"]
    assert indexes == ["1", "2", "3"]


# As Anthropic, Google, xAI, Groq, OpenAI, Amazon and Moonshot word it.
TOO_LONG = (
    "input length and `max_tokens` exceed context limit: 9 + 5 > 10",
    "The input token count (9) exceeds the maximum number of tokens allowed (8).",
    "This model's maximum prompt length is 8 but the request contains 9 tokens.",
    "Please reduce the length of the messages or completion.",
    "Input tokens exceed the configured limit of 8 tokens.",
    "Input is too long for requested model.",
    "Your request exceeded model token limit: 8",
)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "x", "type": "invalid_request_error"}, "upstream_error"),
        (401, {"message": "bad key", "code": "invalid_api_key"}, "upstream_error"),
        (403, {}, "upstream_error"),
        (404, {"code": "model_not_found"}, "upstream_error"),
        (302, {}, "upstream_error"),
        (204, {}, "upstream_error"),
        (500, {"type": "server_error"}, "upstream_error"),
        (502, {}, "upstream_error"),
        (503, {}, "upstream_unavailable"),
        (529, {}, "upstream_unavailable"),
        (408, {}, "upstream_timeout"),
        (504, {}, "upstream_timeout"),
        (429, {"type": "tokens", "code": "rate_limit_exceeded"}, "upstream_rate_limited"),
        (429, {"code": "insufficient_quota"}, "upstream_rate_limited"),
        (400, {"code": "content_filter"}, "content_filtered"),
        (
            400,
            {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}},
            "content_filtered",
        ),
        (400, {"code": "context_length_exceeded"}, "context_length"),
        (400, {"code": 400, "type": "exceed_context_size_error"}, "context_length"),
        (
            400,
            {"message": "This model's maximum context length is 4096 tokens.", "code": 400},
            "context_length",
        ),
        (413, {"message": "prompt is too long: 9 tokens"}, "context_length"),
        (413, {}, "context_length"),
        *((400, {"message": text}, "context_length") for text in TOO_LONG),
        (
            400,
            {"message": "max_tokens is too large: 9. At most 8 are supported."},
            "upstream_error",
        ),
        (500, {"message": "context length"}, "upstream_error"),
    ],
)
def test_a_refusal_is_told_by_its_status_and_code(
    status: int, error: dict[str, object], kind: ErrorKind
) -> None:
    found = OpenAI().decode_error(status, RETRY, json.dumps({"error": error}).encode())
    assert found.kind == kind


@pytest.mark.parametrize(
    ("status", "kind", "elsewhere"),
    [
        *((status, UpstreamRejected, False) for status in (400, 405, 409, 415, 422, 451)),
        *((status, UpstreamDenied, True) for status in (401, 402, 403, 404)),
        *((status, UpstreamError, True) for status in (302, 500, 501, 502, 599)),
        *((status, UpstreamUnavailable, True) for status in (503, 529)),
        *((status, UpstreamTimeout, True) for status in (408, 504)),
        (429, UpstreamRateLimited, True),
    ],
)
def test_a_refusal_says_whether_another_server_may_do_better(
    status: int, kind: type[UpstreamError], elsewhere: bool
) -> None:
    found = OpenAI().decode_error(status, Headers(), b"{}")
    assert (type(found), found.elsewhere) == (kind, elsewhere)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ((), None),
        ((("retry-after", "7"),), 7.0),
        ((("retry-after", " 2.5 "),), 2.5),
        ((("retry-after", "0"),), 0.0),
        ((("retry-after", "11"),), 10.0),
        ((("retry-after", "1000000000"),), 10.0),
        ((("retry-after", "-1"),), None),
        ((("retry-after", "nan"),), None),
        ((("retry-after", "1e9"),), None),
        ((("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),), None),
        ((("retry-after", "Wed, 21 Oct 2026 07:28:07 GMT"), NOW), 7.0),
        ((("retry-after", "Wednesday, 21-Oct-26 07:28:03 GMT"), NOW), 3.0),
        ((("retry-after", "Wed, 21 Oct 2026 06:00:00 GMT"), NOW), 0.0),
        ((("retry-after", "Wed, 21 Oct 2099 06:00:00 GMT"), NOW), 10.0),
        ((("retry-after", "Wed, 21 Oct 2026 07:28:07"), NOW), None),
        ((("retry-after", "soon"), NOW), None),
        ((("retry-after", "9" * 5000),), None),
        ((("retry-after", "9"), ("retry-after-ms", "1500")), 1.5),
    ],
)
def test_a_wait_is_read_in_seconds_and_capped(
    fields: tuple[tuple[str, str], ...], seconds: float | None
) -> None:
    for status in (429, 503):
        assert OpenAI().decode_error(status, Headers(fields), b"").retry_after == seconds


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>secret</html>",
        b'{"error":"secret"}',
        b'{"detail":"secret"}',
        b'[{"error":{"message":"secret"}}]',
        b'{"error":{"message":"secret","code":"has a secret","type":["secret"]}}',
        b'{"error":{"message":"secret"',
        b'{"error":{"message":"secret","code":"sk-secret-1"}}',
        b"\xff\xfe",
        b"null",
    ],
)
def test_an_upstreams_words_are_not_repeated(data: bytes) -> None:
    error = OpenAI().decode_error(500, Headers(), data)
    assert str(error) == "upstream answered an error 500"


def test_a_code_that_is_an_identifier_is_named() -> None:
    data = b'{"error":{"message":"secret","type":"server_error","code":"out_of_memory"}}'
    assert str(OpenAI().decode_error(500, Headers(), data)) == (
        "upstream answered an error 500 (out_of_memory)"
    )


CALL_IDS = st.sampled_from(["by id and index", "by index", "by id", "repeated", "used index"])


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
        min_size=1,
        max_size=4,
    ),
    CALL_IDS,
    st.data(),
)
def test_calls_interleaved_in_any_way_come_out_whole(
    wanted: list[dict[str, str]], style: str, data: st.DataObject
) -> None:
    texts = [json.dumps(arguments, ensure_ascii=False) for arguments in wanted]
    left = dict(enumerate(texts))
    begun: set[int] = set()
    stream = b""
    while left:
        # Fragments that only the order tells apart cannot be interleaved.
        order = sorted(left)[:1] if style == "used index" else sorted(left)
        number = data.draw(st.sampled_from(order))
        size = len(left[number]) - data.draw(st.integers(0, len(left[number]) - 1))
        piece, rest = left[number][:size], left[number][size:]
        call = _fragment(style, number, piece, first=number not in begun)
        begun.add(number)
        stream += openai_chunk({"tool_calls": [call]})
        if rest:
            left[number] = rest
        else:
            del left[number]
    stream += openai_chunk(finish="tool_calls") + sse(b"[DONE]")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    decoder = OpenAI().decoder("")
    events = []
    for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += decoder.feed(stream[low:high])
    ended = {event.name: event.arguments for event in events if isinstance(event, ToolCallEnded)}
    assert ended == {f"tool{number}": text for number, text in enumerate(texts)}
    assert [json.loads(text) for text in texts] == wanted


def _fragment(style: str, number: int, piece: str, *, first: bool) -> dict[str, object]:
    function: dict[str, object] = {"arguments": piece}
    call: dict[str, object] = {"function": function}
    if first or style == "repeated":
        function["name"] = f"tool{number}"
    if style in ("by id", "repeated") or (first and style != "by index"):
        call["id"] = f"call_{number}"
    if style in ("by id and index", "by index", "repeated"):
        call["index"] = number
    elif style == "used index":
        call["index"] = 0
    return call
