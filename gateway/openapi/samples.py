"""Turns for the examples, as the dialects' encoders write them."""

from collections.abc import Mapping, Sequence
from typing import Final

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
from gateway.messages import TurnContext, Usage
from gateway.ports.codecs import Dialect

_CALL: Final = "call_1"
_TOOL: Final = "track_order"
_ARGUMENTS: Final = '{"order": 1234}'
_USAGE: Final = Usage(120, 56)

_REPLY: Final[tuple[TurnEvent, ...]] = (
    TurnStarted(),
    TextDelta("It is"),
    TextDelta(" on its way."),
    RoundFinished("stop", _USAGE),
    TurnFinished("It is on its way.", "stop", _USAGE, 842, ()),
)
_TOOL_USE: Final[tuple[TurnEvent, ...]] = (
    TurnStarted(),
    ToolCallStarted(_CALL, _TOOL),
    ToolCallDelta(_CALL, _ARGUMENTS),
    ToolCallEnded(_CALL, _TOOL, _ARGUMENTS),
    ToolReturned(_CALL, _TOOL, _ARGUMENTS, '{"status": "shipped"}', 35, "ok"),
    RoundFinished("tool_calls", _USAGE),
    TextDelta("It is on its way."),
    RoundFinished("stop", _USAGE),
    TurnFinished("It is on its way.", "stop", Usage(240, 112), 1310, ()),
)
_GUARD: Final[tuple[TurnEvent, ...]] = (
    TurnStarted(),
    TextDelta("Let me see."),
    GuardFired("phrases", "redirect", "no_advice", "Please ask a doctor."),
    RoundFinished("stop", _USAGE),
    TurnFinished("Let me see.", "stop", _USAGE, 640, ()),
)
_FAILURE: Final[tuple[TurnEvent, ...]] = (
    TurnStarted(),
    TextDelta("It is"),
    TurnFailed("upstream_timeout", 30_012),
)
TURNS: Final[Mapping[str, tuple[TurnEvent, ...]]] = {
    "reply": _REPLY,
    "tool": _TOOL_USE,
    "guard": _GUARD,
    "failure": _FAILURE,
}


def streams(dialect: Dialect, framing: str, *names: str) -> dict[str, str]:
    """The named turns in one of the dialect's framings; without names the good reply and the
    one that fails."""
    return {name: _written(dialect, framing, TURNS[name]) for name in names or ("reply", "failure")}


def _written(dialect: Dialect, framing: str, turn: Sequence[TurnEvent]) -> str:
    encoder = dialect.encoder(_context(framing))
    return b"".join(record for event in turn for record in encoder.encode(event)).decode()


def _context(framing: str) -> TurnContext:
    return TurnContext(
        turn_id="5f0c4a1e-5e6b-4f0c-9a51-0c9a3d5b7e11",
        run_id="2b1d9c7f-8a43-4d52-b6de-7f3e5a90c212",
        message_id="9d8e7f6a-1b2c-4d3e-8f40-a1b2c3d4e513",
        conversation_id="k57b2m9qx4t8wz1c6v3n0r5h7j2d8f4a",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        model="some-model",
        framing=framing,
        created_at=1_767_225_600,
        refusal="I can't help with that.",
    )
