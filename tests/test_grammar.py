import pytest

from gateway.events import (
    GuardFired,
    RoundFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.grammar import Grammar, OutOfOrder, TurnState

START, TEXT = TurnStarted(), TextDelta("a")
OPEN, PART, CALLED = (
    ToolCallStarted("c", "t"),
    ToolCallDelta("c", "{"),
    ToolCallEnded("c", "t", "{}"),
)
BACK = ToolReturned("c", "t", "{}", "1", 1, "ok")
ROUND = RoundFinished("stop", None)
DONE = TurnFinished("a", "stop", None, 1, ())
PASSED_ON = TurnFinished("", "tool_calls", None, 1, ())
CUT_OFF = TurnFinished("", "length", None, 1, ())
FAILED = TurnFailed("internal", 1)
GUARD = GuardFired("no-go", "block", "rule", None)


def walk(*events: TurnEvent) -> TurnState:
    grammar = Grammar()
    for event in events:
        grammar.advance(event)
    return grammar.state


@pytest.mark.parametrize(
    "events",
    [
        (START, TEXT, ROUND, DONE),
        (START, ROUND, DONE),
        (START, GUARD, DONE),
        (START, OPEN, PART, CALLED, BACK, ROUND, TEXT, ROUND, DONE),
        (START, OPEN, CALLED, ROUND, PASSED_ON),
        (START, OPEN, CALLED, ROUND, CUT_OFF),
    ],
)
def test_a_good_turn_is_done(events: tuple[TurnEvent, ...]) -> None:
    assert walk(*events) is TurnState.DONE


@pytest.mark.parametrize(
    "events", [(START, FAILED), (START, TEXT, FAILED), (START, OPEN, PART, FAILED)]
)
def test_a_turn_may_fail_at_any_moment_after_its_start(events: tuple[TurnEvent, ...]) -> None:
    assert walk(*events) is TurnState.FAILED


@pytest.mark.parametrize(
    "events",
    [
        (TEXT,),
        (FAILED,),
        (START, START),
        (START, TEXT, DONE),
        (START, TEXT, ROUND, DONE, DONE),
        (START, TEXT, ROUND, DONE, FAILED),
        (START, FAILED, FAILED),
        (START, FAILED, TEXT),
        (START, PART),
        (START, OPEN, OPEN),
        (START, OPEN, CALLED, PART),
        (START, OPEN, BACK),
        (START, OPEN, CALLED, BACK, BACK),
        (START, OPEN, ROUND),
        (START, OPEN, CALLED, ROUND, DONE),
    ],
)
def test_what_the_tables_do_not_allow_is_refused(events: tuple[TurnEvent, ...]) -> None:
    with pytest.raises(OutOfOrder):
        walk(*events)
