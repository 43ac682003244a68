"""The canonical events: what a model said, and what a turn tells its client.

Values only. A codec for an upstream turns bytes into `ModelEvent`s, the engine turns those into
`TurnEvent`s, a dialect's encoder turns those into bytes. `grammar.py` has their legal orders.

Text in an event never holds a lone surrogate: a decoder joins a pair that was split over two
deltas and replaces what stays alone with U+FFFD.
"""

from dataclasses import dataclass
from typing import Literal

from gateway.errors import ErrorKind
from gateway.messages import Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
ToolOutcome = Literal["ok", "error", "timeout", "invalid_arguments", "unknown_tool", "denied"]
GuardAction = Literal["block", "redirect", "escalate"]


@dataclass(slots=True)
class TextDelta:
    """Some more of the reply's text; never empty."""

    text: str


@dataclass(slots=True)
class ReasoningDelta:
    """Some more of the model's reasoning; never empty."""

    text: str


@dataclass(slots=True)
class ToolCallStarted:
    """The model began to call a tool; its arguments follow."""

    call_id: str
    name: str


@dataclass(slots=True)
class ToolCallDelta:
    """Some more of a call's argument text: a fragment of JSON, to be appended."""

    call_id: str
    arguments: str


@dataclass(slots=True)
class ToolCallEnded:
    """A call is complete; `arguments` is its whole JSON text, `{}` if the model gave none."""

    call_id: str
    name: str
    arguments: str


@dataclass(slots=True)
class ToolReturned:
    """A tool answered; `result` is its text (JSON or not), `latency_ms` from call to result."""

    call_id: str
    name: str
    arguments: str
    result: str
    latency_ms: int
    outcome: ToolOutcome


@dataclass(slots=True)
class GuardFired:
    """A guard acted; `detail` is the rule's name, `replacement` is set only for a redirect."""

    kind: str
    action: GuardAction
    detail: str
    replacement: str | None


@dataclass(slots=True)
class CitationFound:
    """A source of the reply; `index` counts from "1" within the turn."""

    index: str
    link: str | None
    source_name: str | None
    cited_text: str | None


@dataclass(slots=True)
class ModerationReported:
    """The upstream judged the prompt or the reply."""

    category: str
    filtered: bool
    severity: str | None


@dataclass(slots=True)
class ModelFinished:
    """The upstream's stream ended with its end mark; `usage` is None if it sent none."""

    reason: FinishReason
    usage: Usage | None


@dataclass(slots=True)
class TurnStarted:
    """The turn has something to say; its ids are in the encoder's context.

    `model` is the one that answers; it is empty while a silence is filled before any does, and
    then the context's, the agent's first, stands for it.
    """

    model: str = ""


@dataclass(slots=True)
class RoundFinished:
    """One model call is over, and every tool that the gateway ran for it has returned."""

    reason: FinishReason
    usage: Usage | None


@dataclass(slots=True)
class TurnFinished:
    """The turn is over and good.

    `text` is the whole reply as generated, `usage` the sum over the rounds (None if any round
    had none), `latency_ms` runs from the request's last byte.
    """

    text: str
    reason: FinishReason
    usage: Usage | None
    latency_ms: int
    citations: tuple[CitationFound, ...]


@dataclass(slots=True)
class TurnFailed:
    """The turn is over and not good; what was delivered before stays delivered."""

    kind: ErrorKind
    latency_ms: int


ModelEvent = (
    TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallEnded
    | ToolReturned
    | CitationFound
    | ModerationReported
    | ModelFinished
)
TurnEvent = (
    TurnStarted
    | TextDelta
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallEnded
    | ToolReturned
    | GuardFired
    | CitationFound
    | ModerationReported
    | RoundFinished
    | TurnFinished
    | TurnFailed
)
