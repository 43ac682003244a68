"""Legal turns, drawn by walking the tables of `grammar.py`.

A walk takes any event that the tables allow, at any time, and is then led to its end by the
shortest way. Texts are any text that canonical events may hold.
"""

from collections.abc import Callable
from typing import Final, get_args

from hypothesis import strategies as st

from gateway.errors import ERROR_KINDS
from gateway.events import (
    CitationFound,
    FinishReason,
    GuardAction,
    GuardFired,
    ModerationReported,
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolOutcome,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.grammar import CALL, TURN, CallState, Grammar, TurnState
from gateway.messages import Usage

TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
_OPTIONAL_TEXTS: Final = st.none() | TEXTS
_USAGES: Final = st.none() | st.builds(Usage, st.integers(0, 1_000_000), st.integers(0, 1_000_000))
_ENDINGS: Final[list[FinishReason]] = ["stop", "length", "content_filter", "other"]
_ACTIONS: Final[tuple[GuardAction, ...]] = get_args(GuardAction)
_OUTCOMES: Final[tuple[ToolOutcome, ...]] = get_args(ToolOutcome)
_FRAGMENTS: Final = st.sampled_from(['{"a": ', "1", "}", '"', "é", "\\u00e9", "[]", " "])


class _Walk:
    def __init__(self, draw: st.DrawFn) -> None:
        self.events: list[TurnEvent] = []
        self._draw = draw
        self._grammar = Grammar()
        self._calls: dict[str, CallState] = {}
        self._arguments: dict[str, str] = {}
        self._makers: dict[type, Callable[[], TurnEvent]] = {
            TurnStarted: TurnStarted,
            TextDelta: lambda: TextDelta(draw(TEXTS)),
            ReasoningDelta: lambda: ReasoningDelta(draw(TEXTS)),
            ToolCallStarted: self._open_call,
            ToolCallDelta: self._grow_call,
            ToolCallEnded: self._end_call,
            ToolReturned: self._return_call,
            GuardFired: self._guard,
            CitationFound: self._citation,
            ModerationReported: lambda: ModerationReported(
                draw(TEXTS), draw(st.booleans()), draw(_OPTIONAL_TEXTS)
            ),
            RoundFinished: lambda: RoundFinished("stop", draw(_USAGES)),
            TurnFinished: self._finish,
            TurnFailed: lambda: TurnFailed(draw(st.sampled_from(ERROR_KINDS)), 7),
        }

    def wander(self) -> None:
        """Some steps, none of them terminal."""
        self.take(TurnStarted)
        for _ in range(self._draw(st.integers(0, 20))):
            kinds = [kind for kind in self._legal() if kind not in (TurnFinished, TurnFailed)]
            self.take(self._draw(st.sampled_from(kinds)))

    def end(self) -> None:
        """The shortest way to a terminal event."""
        if self._draw(st.booleans()):
            self.take(TurnFailed)
            return
        while self._in_state(CallState.OPEN):
            self.take(ToolCallEnded)
        if self._draw(st.booleans()):
            while self._in_state(CallState.CALLED):
                self.take(ToolReturned)
        if self._grammar.state is TurnState.ROUND:
            self.take(RoundFinished)
        self.take(TurnFinished)

    def take(self, kind: type) -> None:
        event = self._makers[kind]()
        self._grammar.advance(event)
        self.events.append(event)

    def _legal(self) -> list[type]:
        kinds = list(TURN[self._grammar.state])
        calls = {*self._calls.values()}
        for kind in (ToolCallDelta, ToolCallEnded, ToolReturned):
            if kind in kinds and not any(kind in CALL[state] for state in calls):
                kinds.remove(kind)
        if CallState.OPEN in calls and RoundFinished in kinds:
            kinds.remove(RoundFinished)
        return kinds

    def _in_state(self, state: CallState) -> list[str]:
        return [call_id for call_id, its in self._calls.items() if its is state]

    def _pick(self, state: CallState) -> tuple[str, str]:
        call_id = self._draw(st.sampled_from(self._in_state(state)))
        return call_id, f"tool_{call_id}"

    def _open_call(self) -> TurnEvent:
        call_id = f"call_{len(self._calls)}"
        self._calls[call_id] = CallState.OPEN
        self._arguments[call_id] = ""
        return ToolCallStarted(call_id, f"tool_{call_id}")

    def _grow_call(self) -> TurnEvent:
        call_id, _ = self._pick(CallState.OPEN)
        fragment = self._draw(_FRAGMENTS)
        self._arguments[call_id] += fragment
        return ToolCallDelta(call_id, fragment)

    def _end_call(self) -> TurnEvent:
        call_id, name = self._pick(CallState.OPEN)
        self._calls[call_id] = CallState.CALLED
        return ToolCallEnded(call_id, name, self._arguments[call_id] or "{}")

    def _return_call(self) -> TurnEvent:
        call_id, name = self._pick(CallState.CALLED)
        self._calls[call_id] = CallState.RETURNED
        outcome = self._draw(st.sampled_from(_OUTCOMES))
        result = self._draw(_FRAGMENTS | TEXTS)
        return ToolReturned(call_id, name, self._arguments[call_id] or "{}", result, 12, outcome)

    def _guard(self) -> TurnEvent:
        action = self._draw(st.sampled_from(_ACTIONS))
        replacement = self._draw(TEXTS) if action == "redirect" else None
        return GuardFired("phrases", action, "no_go", replacement)

    def _citation(self) -> TurnEvent:
        index = sum(isinstance(event, CitationFound) for event in self.events) + 1
        texts = [self._draw(_OPTIONAL_TEXTS) for _ in range(3)]
        return CitationFound(str(index), *texts)

    def _finish(self) -> TurnEvent:
        unsettled = any(state is not CallState.RETURNED for state in self._calls.values())
        reason = "tool_calls" if unsettled else self._draw(st.sampled_from(_ENDINGS))
        return TurnFinished(
            "".join(event.text for event in self.events if isinstance(event, TextDelta)),
            reason,
            self._draw(_USAGES),
            842,
            tuple(event for event in self.events if isinstance(event, CitationFound)),
        )


@st.composite
def turns(draw: st.DrawFn) -> list[TurnEvent]:
    """A whole turn, from `TurnStarted` to its one terminal event."""
    walk = _Walk(draw)
    walk.wander()
    walk.end()
    return walk.events
