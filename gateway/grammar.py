"""The legal orders of turn events, as two tables. Everything about order lives in this file.

`TURN` has the states of a turn, `CALL` those of one tool call inside it. `Grammar` walks both and
refuses an event that is out of order: an encoder may rely on it and stay free of checks.
"""

from enum import Enum, auto
from typing import Final

from gateway.events import (
    CitationFound,
    GuardFired,
    ModerationReported,
    ReasoningDelta,
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


class TurnState(Enum):
    """Where a turn is. `BETWEEN` has no round open; `DONE` and `FAILED` are final."""

    IDLE = auto()
    BETWEEN = auto()
    ROUND = auto()
    DONE = auto()
    FAILED = auto()


class CallState(Enum):
    """Where one tool call is."""

    ABSENT = auto()
    OPEN = auto()
    CALLED = auto()
    RETURNED = auto()


_SPEAKING: Final[dict[type, TurnState]] = {
    TextDelta: TurnState.ROUND,
    ReasoningDelta: TurnState.ROUND,
    ToolCallStarted: TurnState.ROUND,
    ToolCallDelta: TurnState.ROUND,
    ToolCallEnded: TurnState.ROUND,
    ToolReturned: TurnState.ROUND,
    CitationFound: TurnState.ROUND,
    ModerationReported: TurnState.ROUND,
    RoundFinished: TurnState.BETWEEN,
    TurnFailed: TurnState.FAILED,
}

TURN: Final[dict[TurnState, dict[type, TurnState]]] = {
    TurnState.IDLE: {TurnStarted: TurnState.BETWEEN},
    TurnState.BETWEEN: _SPEAKING | {GuardFired: TurnState.BETWEEN, TurnFinished: TurnState.DONE},
    TurnState.ROUND: _SPEAKING | {GuardFired: TurnState.ROUND},
    TurnState.DONE: {},
    TurnState.FAILED: {},
}

CALL: Final[dict[CallState, dict[type, CallState]]] = {
    CallState.ABSENT: {ToolCallStarted: CallState.OPEN},
    CallState.OPEN: {ToolCallDelta: CallState.OPEN, ToolCallEnded: CallState.CALLED},
    CallState.CALLED: {ToolReturned: CallState.RETURNED},
    CallState.RETURNED: {},
}

_CALL_EVENTS: Final = (ToolCallStarted, ToolCallDelta, ToolCallEnded, ToolReturned)


class OutOfOrder(AssertionError):
    """An event came where the tables do not allow it: a fault of this program."""


class Grammar:
    """The runtime check of one turn."""

    __slots__ = ("_calls", "state")

    def __init__(self) -> None:
        self.state = TurnState.IDLE
        self._calls: dict[str, CallState] = {}

    def advance(self, event: TurnEvent) -> None:
        """Takes one event; raises `OutOfOrder` if it may not come now."""
        kind = type(event)
        following = TURN[self.state].get(kind)
        if following is None:
            raise OutOfOrder(f"{kind.__name__} in state {self.state.name}")
        if isinstance(event, _CALL_EVENTS):
            self._advance_call(event)
        elif kind is RoundFinished and CallState.OPEN in self._calls.values():
            raise OutOfOrder("RoundFinished while a tool call is open")
        elif kind is TurnFinished:
            self._check_calls_returned(event)
        self.state = following

    def _advance_call(
        self, event: ToolCallStarted | ToolCallDelta | ToolCallEnded | ToolReturned
    ) -> None:
        state = self._calls.get(event.call_id, CallState.ABSENT)
        following = CALL[state].get(type(event))
        if following is None:
            raise OutOfOrder(f"{type(event).__name__} for a call in state {state.name}")
        self._calls[event.call_id] = following

    def _check_calls_returned(self, event: TurnEvent) -> None:
        # A call to a tool that the gateway does not run stays open and is the client's to answer;
        # one that the model's own limit or filter cut off is nobody's.
        if isinstance(event, TurnFinished) and event.reason == "stop":
            if any(state is not CallState.RETURNED for state in self._calls.values()):
                raise OutOfOrder("TurnFinished before every call returned")
