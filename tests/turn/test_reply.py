import pytest

from gateway.errors import ReplyTooLong
from gateway.events import (
    CitationFound,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from gateway.turn.reply import ReplyFold, joined


def test_text_is_folded_and_deltas_are_counted() -> None:
    fold = ReplyFold(100)
    assert fold.take([TextDelta("a"), ReasoningDelta("hm"), TextDelta("b")])
    assert not fold.take([ToolCallStarted("1", "f"), ToolCallDelta("1", "{}")])
    assert (fold.text, fold.deltas) == ("ab", 5)


def test_reasoning_alone_is_nothing_to_be_seen() -> None:
    assert not ReplyFold(100).take([ReasoningDelta("hm")])


def test_citations_are_kept_in_order() -> None:
    fold = ReplyFold(100)
    cited = CitationFound("1", "https://a.example", "a", None)
    fold.take([cited])
    assert fold.citations == [cited]


def test_text_over_the_bound_is_refused_and_not_kept() -> None:
    fold = ReplyFold(3)
    fold.take([TextDelta("abc")])
    with pytest.raises(ReplyTooLong):
        fold.take([TextDelta("d")])
    assert fold.text == "abc"


def test_what_came_with_text_over_the_bound_is_not_kept_either() -> None:
    fold = ReplyFold(3)
    with pytest.raises(ReplyTooLong):
        fold.take([TextDelta("ab"), TextDelta("cd")])
    assert fold.text == ""


@pytest.mark.parametrize(
    "events",
    [
        [ReasoningDelta("abcd")],
        [ToolCallStarted("1", "abc")],
        [ToolCallStarted("1", "a"), ToolCallDelta("1", "{}")],
        [CitationFound("1", "abc", None, "d")],
        [TextDelta("\N{SNOWMAN}"), TextDelta("a")],
    ],
)
def test_all_that_is_generated_counts_for_the_bound_in_bytes(events: list[ModelEvent]) -> None:
    with pytest.raises(ReplyTooLong):
        ReplyFold(3).take(events)


def test_only_neighbouring_text_is_joined() -> None:
    events: list[ModelEvent] = [TextDelta("a"), TextDelta("b"), ReasoningDelta("r"), TextDelta("c")]
    assert joined(events) == [TextDelta("ab"), ReasoningDelta("r"), TextDelta("c")]
