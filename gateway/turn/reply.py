"""Folds a turn's events into the reply that history keeps. Sans-IO.

Bound: all that the model generated in the turn, text, reasoning and calls, holds at most
`output_bytes` bytes of UTF-8; what comes after is `ReplyTooLong`.
"""

from collections.abc import Sequence

from gateway.errors import ReplyTooLong
from gateway.events import (
    CitationFound,
    FinishReason,
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
)
from gateway.messages import KeptCall


class ReplyFold:
    """What the model has said so far; `deltas` counts the pieces of text, reasoning and calls."""

    def __init__(self, output_bytes: int) -> None:
        self.deltas = 0
        self.citations: list[CitationFound] = []
        self._parts: list[str] = []
        self._left = output_bytes
        self._calls: dict[str, KeptCall] = {}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    @property
    def calls(self) -> tuple[KeptCall, ...]:
        """The complete tool calls so far, each with its result if that has come."""
        return tuple(self._calls.values())

    def reason(self, said: FinishReason) -> FinishReason:
        """Why the turn ends: some servers say `stop` although a call waits for its result."""
        waiting = any(call.result is None for call in self._calls.values())
        return "tool_calls" if said == "stop" and waiting else said

    def take(self, events: Sequence[ModelEvent]) -> bool:
        """Adds events that are about to be sent; true if any of them is text to be seen.

        Raises `ReplyTooLong` if they would pass the bound, and then adds none of their text.
        """
        parts: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                self.deltas += 1
                self._spend(event.text)
                parts.append(event.text)
            elif isinstance(event, CitationFound):
                self._spend(event.link or "", event.source_name or "", event.cited_text or "")
                self.citations.append(event)
            elif isinstance(event, ReasoningDelta):
                self.deltas += 1
                self._spend(event.text)
            elif isinstance(event, ToolCallStarted):
                self.deltas += 1
                self._spend(event.call_id, event.name)
            elif isinstance(event, ToolCallDelta):
                self.deltas += 1
                self._spend(event.arguments)
            elif isinstance(event, ToolCallEnded):
                call = KeptCall(event.call_id, event.name, event.arguments)
                self._calls[event.call_id] = call
            elif isinstance(event, ToolReturned):
                self._calls[event.call_id] = KeptCall(
                    event.call_id, event.name, event.arguments, event.result
                )
        self._parts += parts
        return bool(parts)

    def _spend(self, *texts: str) -> None:
        for text in texts:
            self._left -= len(text) if text.isascii() else len(text.encode())
        if self._left < 0:
            raise ReplyTooLong("the reply passed output_bytes")


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
