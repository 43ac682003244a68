"""Folds a turn's events into the reply that history keeps. Sans-IO.

Bound: the reply's text holds at most `output_bytes` code points; what comes after is `Truncated`.
"""

from collections.abc import Sequence

from gateway.errors import Truncated
from gateway.events import (
    CitationFound,
    FinishReason,
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
)


class ReplyFold:
    """What the model has said so far; `deltas` counts text and reasoning deltas."""

    def __init__(self, output_bytes: int) -> None:
        self.deltas = 0
        self.citations: list[CitationFound] = []
        self._parts: list[str] = []
        self._left = output_bytes
        self._unanswered: set[str] = set()

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def reason(self, said: FinishReason) -> FinishReason:
        """Why the turn ends: some servers say `stop` although a call waits for its result."""
        return "tool_calls" if said == "stop" and self._unanswered else said

    def take(self, events: Sequence[ModelEvent]) -> bool:
        """Adds events that are about to be sent; true if any of them is text to be seen.

        Raises `Truncated` if their text would pass the bound, and then adds none of it.
        """
        parts: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                self.deltas += 1
                self._left -= len(event.text)
                if self._left < 0:
                    raise Truncated("the reply passed output_bytes")
                parts.append(event.text)
            elif isinstance(event, CitationFound):
                self.citations.append(event)
            elif isinstance(event, ReasoningDelta):
                self.deltas += 1
            elif isinstance(event, ToolCallEnded):
                self._unanswered.add(event.call_id)
            elif isinstance(event, ToolReturned):
                self._unanswered.discard(event.call_id)
        self._parts += parts
        return bool(parts)


def generated(events: Sequence[ModelEvent]) -> bool:
    """Whether the model has begun to answer (or has ended without a word): the head may go."""
    return any(
        isinstance(event, TextDelta | ReasoningDelta | ToolCallStarted | ModelFinished)
        for event in events
    )


def joined(events: list[ModelEvent]) -> list[ModelEvent]:
    """The same events with neighbouring text deltas made one."""
    result: list[ModelEvent] = []
    run: list[str] = []
    for event in events:
        if type(event) is TextDelta:
            run.append(event.text)
            continue
        if run:
            result.append(TextDelta("".join(run)))
            run = []
        result.append(event)
    if run:
        result.append(TextDelta("".join(run)))
    return result
