import json

import pytest

from gateway.certify.recordings import PROTOCOLS, Protocol, Recording, shipped
from gateway.certify.truth import Truth
from gateway.readers import Tokens

FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
DONE = b"data: [DONE]"
START = b'data: {"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}'
DELTA = b'data: {"type":"message_delta","delta":{},"usage":{"output_tokens":9}}'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}'


def stream(*events: bytes) -> bytes:
    return b"".join(event + b"\n\n" for event in events)


def truth(data: bytes, protocol: Protocol = "openai", kind: str = "text/event-stream") -> Truth:
    return Truth(Recording("made up", protocol, kind, data))


def first_whole(data: bytes, protocol: Protocol = "openai") -> int:
    found = truth(data, protocol)
    wholes = [cut for cut in range(len(data) + 1) if found.at(cut).whole]
    assert wholes == list(range(wholes[0], len(data) + 1))
    return wholes[0]


def test_chat_completions_are_whole_once_the_chunk_with_the_finish_reason_is_there() -> None:
    data = stream(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}', FINISH, USAGE, DONE)
    assert first_whole(data) == data.index(FINISH) + len(FINISH)


def test_done_without_a_finish_reason_is_not_whole() -> None:
    data = stream(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}', DONE)
    assert not truth(data).at(len(data)).whole


@pytest.mark.parametrize(
    "choice",
    ['{"index":1,"finish_reason":"stop"}', '{"finish_reason":"error"}', '{"finish_reason":null}'],
)
def test_what_is_no_finish_of_this_reply_makes_nothing_whole(choice: str) -> None:
    data = stream(f'data: {{"choices":[{choice}]}}'.encode())
    assert not truth(data).at(len(data)).whole


def test_messages_are_whole_with_message_stop_alone() -> None:
    data = stream(START, DELTA, STOP)
    assert first_whole(data, "anthropic") == data.index(STOP) + len(STOP)


@pytest.mark.parametrize(("protocol", "mark"), [("openai", DONE), ("anthropic", STOP)])
def test_an_end_mark_says_that_nothing_more_comes_with_its_blank_line_only(
    protocol: Protocol, mark: bytes
) -> None:
    data = stream(FINISH, mark)
    assert not truth(data, protocol).at(len(data) - 1).ended
    assert truth(data, protocol).at(len(data)).ended


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_document_is_whole_at_its_last_brace(protocol: Protocol) -> None:
    data = b'{"choices":[{"finish_reason":null}],"content":[]} \n'
    found = truth(data, protocol, "application/json")
    assert [cut for cut in range(len(data) + 1) if found.at(cut).whole] == [49, 50, 51]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("beginning", [b"", b"\xef\xbb\xbf", b": comment\n\n"])
def test_line_ends_a_mark_and_comments_change_nothing(line_end: bytes, beginning: bytes) -> None:
    data = (beginning + stream(FINISH, USAGE, DONE)).replace(b"\n", line_end)
    assert first_whole(data) == data.index(FINISH) + len(FINISH)
    assert truth(data).at(len(data)).usage == (3, 2)


def usage_of(protocol: Protocol, *payloads: object) -> Tokens | None:
    data = stream(*(f"data: {json.dumps(payload)}".encode() for payload in payloads))
    return truth(data, protocol).at(len(data)).usage


def test_the_last_usage_that_was_stated_counts() -> None:
    first, last = ({"prompt_tokens": 3, "completion_tokens": n} for n in (1, 2))
    assert usage_of("openai", {"usage": first}, {"usage": last}, {"usage": None}) == (3, 2)
    assert usage_of("openai", {"choices": [{"usage": last}]}) == (3, 2)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": 3},
        {"prompt_tokens": 3, "completion_tokens": -1},
        {"prompt_tokens": True, "completion_tokens": 1},
    ],
)
def test_usage_that_is_not_stated_is_none(usage: object) -> None:
    assert usage_of("openai", {"usage": usage}) is None


def test_input_of_messages_is_what_was_new_written_and_read() -> None:
    begin = {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 1}
    start = {"type": "message_start", "message": {"usage": begin}}
    assert usage_of("anthropic", start) is None
    delta = {"type": "message_delta", "usage": {"output_tokens": 9}}
    assert usage_of("anthropic", start, delta) == (7, 9)
    again = {"type": "message_delta", "usage": {"input_tokens": 5, "output_tokens": 9}}
    assert usage_of("anthropic", start, again) == (9, 9)


def test_nothing_is_read_behind_the_end_mark() -> None:
    data = stream(FINISH, DONE, USAGE)
    assert truth(data).at(len(data)).usage is None


@pytest.mark.parametrize("recording", shipped(), ids=lambda recording: recording.name)
def test_more_bytes_never_take_a_fact_back(recording: Recording) -> None:
    found = Truth(recording)
    was = found.at(0)
    for cut in range(1, len(recording.data) + 1, 3):
        now = found.at(cut)
        assert now.whole >= was.whole, cut
        assert now.usage is not None or was.usage is None, cut
        was = now
