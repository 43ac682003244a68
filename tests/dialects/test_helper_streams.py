import json
from typing import Final

import pytest

from gateway.dialects.helper import Helper
from gateway.events import (
    CitationFound,
    FinishReason,
    GuardFired,
    RoundFinished,
    TextDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.messages import (
    DialectOptions,
    TurnContext,
)
from gateway.ports.codecs import Encoder

HELPER: Final = Helper()


def encoder(framing: str, *, continues: str | None = None, tool_results: bool = False) -> Encoder:
    turn = TurnContext(
        turn_id="t1",
        run_id="r1",
        message_id="m1",
        conversation_id="c1",
        trace_id="trace",
        model="small",
        framing=framing,
        created_at=0,
        refusal="I can't help with that.",
        continues=continues,
        options=DialectOptions(tool_results=tool_results),
    )
    return HELPER.encoder(turn)


def test_the_heads_are_those_of_the_sdk() -> None:
    common = (
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    )
    four = encoder("data-stream").head()
    assert (four.status, four.body) == (200, b"")
    assert four.headers == (
        ("content-type", "text/plain; charset=utf-8"),
        ("x-vercel-ai-data-stream", "v1"),
        *common,
    )
    assert encoder("ui-message-stream").head().headers == (
        ("content-type", "text/event-stream"),
        ("x-vercel-ai-ui-message-stream", "v1"),
        *common,
    )


def test_keep_alives_are_what_each_parser_skips() -> None:
    assert list(encoder("data-stream").keep_alive()) == [b"\n"]
    assert list(encoder("ui-message-stream").keep_alive()) == [b": keep-alive\n\n"]


def test_the_answer_to_an_assistant_message_repeats_its_id() -> None:
    answer = encoder("ui-message-stream", continues="a1").encode(TurnStarted())
    assert answer[0] == b'data: {"type":"start","messageId":"a1"}\n\n'
    answer = encoder("ui-message-stream").encode(TurnStarted())
    assert answer[0] == b'data: {"type":"start","messageId":"m1"}\n\n'


def test_tool_results_are_shown_on_the_data_stream_only_if_turned_on() -> None:
    returned = ToolReturned("c1", "look", "{}", '{"a": 1}', 5, "ok")
    hidden, shown = encoder("data-stream"), encoder("data-stream", tool_results=True)
    for each in (hidden, shown):
        each.encode(TurnStarted())
        each.encode(ToolCallEnded("c1", "look", "{}"))
    assert list(hidden.encode(returned)) == []
    assert list(shown.encode(returned)) == [b'a:{"toolCallId":"c1","result":{"a":1}}\n']


def test_a_call_without_an_answer_is_settled_before_the_error_if_results_are_shown() -> None:
    each = encoder("data-stream", tool_results=True)
    each.encode(TurnStarted())
    each.encode(ToolCallStarted("c1", "look"))
    each.encode(ToolCallEnded("c1", "look", "{}"))
    records = list(each.encode(TurnFailed("deadline", 1)))
    assert [record[:2] for record in records] == [b"a:", b"3:", b"e:", b"d:"]


def test_a_guard_after_a_round_opens_a_step_of_its_own() -> None:
    redirect = GuardFired("phrases", "redirect", "no_go", "Let us talk about your order.")
    finished = TurnFinished("bad", "stop", None, 1, ())
    four = encoder("data-stream")
    events: list[TurnEvent] = [TurnStarted(), RoundFinished("stop", None), redirect, finished]
    records = [record for event in events for record in four.encode(event)]
    assert " ".join(record[:2].decode() for record in records) == "f: e: f: 0: e: d: 8:"
    newer = encoder("ui-message-stream")
    records = [record for event in events for record in newer.encode(event)]
    assert " ".join(json.loads(record[6:])["type"] for record in records[:-1]) == (
        "start start-step finish-step start-step data-guard text-start text-delta text-end "
        "data-annotation finish-step finish"
    )


REASONS: Final[dict[FinishReason, tuple[str, bool]]] = {
    "stop": ("stop", True),
    "tool_calls": ("tool-calls", True),
    "length": ("length", False),
    "content_filter": ("content-filter", False),
    "other": ("unknown", False),
}


@pytest.mark.parametrize("reason", REASONS)
def test_sources_and_annotations_follow_a_good_end_only(reason: FinishReason) -> None:
    word, good = REASONS[reason]
    each = encoder("data-stream")
    each.encode(TurnStarted())
    each.encode(TextDelta("x"))
    each.encode(RoundFinished(reason, None))
    found = CitationFound("1", "https://a.example", None, None)
    records = each.encode(TurnFinished("x", reason, None, 1, (found,)))
    assert json.loads(records[0][2:]) == {"finishReason": word}
    assert [record[:2] for record in records] == ([b"d:", b"h:", b"8:"] if good else [b"d:"])


def test_results_that_cannot_be_written_as_json_are_text() -> None:
    deep = "[" * 5000 + "]" * 5000
    for result in ("not json", "NaN", "1e999", '"\\ud800"', deep, ""):
        each = encoder("ui-message-stream")
        each.encode(TurnStarted())
        each.encode(ToolCallStarted("c1", "look"))
        each.encode(ToolCallEnded("c1", "look", result))
        (record,) = each.encode(ToolReturned("c1", "look", "{}", result, 1, "ok"))
        assert json.loads(record[6:])["output"] == result
