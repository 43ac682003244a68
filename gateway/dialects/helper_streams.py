"""What a Helper client reads: a turn's events in the AI SDK's two stream protocols.

Source: "Stream Protocols" of the AI SDK's documentation; `framing.datastream` and
`framing.uimessages` have their rules, this file what each event is in them.

A redirect's replacement and, after a block, the agent's refusal arrive as text; an escalation is
a call of the tool that Helper's own client waits for.
"""

from collections.abc import Sequence
from typing import Final, assert_never

from gateway.events import (
    CitationFound,
    FinishReason,
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
from gateway.framing import datastream, uimessages
from gateway.framing.asciijson import dumps, json_or_string, quote
from gateway.messages import Reply, TurnContext, Usage
from gateway.replies import TEXTS

ESCALATION_TOOL: Final = "request_human_support"

_REASONS: Final[dict[FinishReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "other": "other",
}
_TOOL_FAULTS: Final[dict[ToolOutcome, str]] = {
    "error": "the tool failed",
    "timeout": "the tool took too long",
    "invalid_arguments": "the arguments do not fit the tool",
    "unknown_tool": "there is no such tool",
    "denied": "the tool may not be called",
}
_UNSETTLED: Final = "the turn ended before the tool answered"
_COMMON_HEADERS: Final = (
    ("cache-control", "no-cache, no-transform"),
    ("x-accel-buffering", "no"),
    ("x-content-type-options", "nosniff"),
)


class DataStream:
    """AI SDK 4: one part per line. Every record ends in a newline, so joined ones still do.

    Tool results only if the tenant turned them on; sources and annotations after a good end.
    `early` keeps to the codes that version 4.0 knew: no reasoning, no sources.
    """

    apart = False
    ends_alone = False
    one_shot = False

    def __init__(self, turn: TurnContext, *, early: bool = False) -> None:
        self._turn = turn
        self._early = early
        self._parts = datastream.PartWriter(turn.message_id, early=early)
        self._open_calls: dict[str, None] = {}

    def head(self) -> Reply:
        """Status and headers of the stream."""
        return _head(datastream.MEDIA_TYPE, datastream.HEADER)

    def keep_alive(self) -> Sequence[bytes]:
        """What the client's parser skips."""
        return (datastream.KEEP_ALIVE,)

    def shown(self, event: TurnFinished) -> str:
        """The whole reply's text as its client shows it in the end."""
        return event.text

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        """The event's records, none where this wire has no word for it."""
        parts = self._parts
        if isinstance(event, TextDelta):
            return parts.text(event.text)
        if isinstance(event, TurnStarted):
            return parts.step()
        if isinstance(event, ReasoningDelta):
            return parts.reasoning(event.text)
        if isinstance(event, ToolCallEnded):
            self._open_calls[event.call_id] = None
            return parts.call(event.call_id, event.name, json_or_string(event.arguments))
        if isinstance(event, ToolReturned):
            return self._returned(event)
        if isinstance(event, GuardFired):
            return self._guard(event)
        if isinstance(event, RoundFinished):
            return parts.step_end(_v4_reason(event.reason), _usage(event.usage))
        if isinstance(event, TurnFinished):
            return self._finish(event)
        if isinstance(event, TurnFailed):
            return [*self._settle_calls(), *parts.error(TEXTS[event.kind])]
        if isinstance(event, (ToolCallStarted, ToolCallDelta, CitationFound, ModerationReported)):
            return ()  # calls are sent whole, sources after the end; a judgement has no code
        assert_never(event)

    def _returned(self, event: ToolReturned) -> list[bytes]:
        self._open_calls.pop(event.call_id, None)
        if not self._turn.options.tool_results:
            return []
        fault = _TOOL_FAULTS.get(event.outcome)
        result = json_or_string(event.result) if fault is None else dumps({"error": fault})
        return self._parts.result(event.call_id, result)

    def _settle_calls(self) -> list[bytes]:
        if not self._turn.options.tool_results:
            return []
        unsettled = dumps({"error": _UNSETTLED})
        return [r for call_id in self._open_calls for r in self._parts.result(call_id, unsettled)]

    def _guard(self, event: GuardFired) -> Sequence[bytes]:
        if event.action == "escalate":
            return self._parts.call(*_escalation(event, self._turn))
        text = _guard_text(event, self._turn)
        return self._parts.text(text) if text else ()

    def _finish(self, event: TurnFinished) -> list[bytes]:
        records = self._parts.end(_v4_reason(event.reason), _usage(event.usage))
        if event.reason in ("stop", "tool_calls"):
            records += [
                datastream.source(found.index, found.link, found.source_name)
                for found in event.citations
                if found.link is not None and not self._early
            ]
            records.append(datastream.annotations([_annotation(self._turn)]))
        return records


class UiMessages:
    """AI SDK 5 and later: server-sent events. The finish reason and the usage are metadata, which
    every version reads.
    """

    apart = False
    ends_alone = False
    one_shot = False

    def __init__(self, turn: TurnContext) -> None:
        self._turn = turn
        self._chunks = uimessages.ChunkWriter()

    def head(self) -> Reply:
        """Status and headers of the stream."""
        return _head(uimessages.MEDIA_TYPE, uimessages.HEADER)

    def keep_alive(self) -> Sequence[bytes]:
        """What the client's parser skips."""
        return (uimessages.KEEP_ALIVE,)

    def shown(self, event: TurnFinished) -> str:
        """The whole reply's text as its client shows it in the end."""
        return event.text

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        """The event's records, none where this wire has no word for it."""
        chunks = self._chunks
        if isinstance(event, TextDelta):
            return chunks.text(event.text)
        if isinstance(event, ReasoningDelta):
            return chunks.text(event.text, "reasoning")
        if isinstance(event, TurnStarted):
            return chunks.start(self._turn.continues or self._turn.message_id)
        if isinstance(event, (ToolCallStarted, ToolCallDelta, ToolCallEnded, ToolReturned)):
            return self._tool(event)
        if isinstance(event, GuardFired):
            return self._guard(event)
        if isinstance(event, CitationFound):
            if event.link is None:
                return ()  # a source without an address has no chunk that every version reads
            return chunks.source(event.index, event.link, event.source_name)
        if isinstance(event, ModerationReported):
            judged = {
                "category": event.category,
                "filtered": event.filtered,
                "severity": event.severity,
            }
            return chunks.data("moderation", dumps(judged))
        if isinstance(event, RoundFinished):
            return chunks.step_end()
        if isinstance(event, TurnFinished):
            return chunks.finish(_annotation(self._turn), _metadata(event))
        if isinstance(event, TurnFailed):
            return chunks.error(TEXTS[event.kind], unsettled=_UNSETTLED)
        assert_never(event)

    def _tool(
        self, event: ToolCallStarted | ToolCallDelta | ToolCallEnded | ToolReturned
    ) -> Sequence[bytes]:
        chunks = self._chunks
        if isinstance(event, ToolCallDelta):
            return chunks.call_delta(event.call_id, event.arguments)
        if isinstance(event, ToolCallStarted):
            return chunks.call_start(event.call_id, event.name)
        if isinstance(event, ToolCallEnded):
            return chunks.call(event.call_id, event.name, json_or_string(event.arguments))
        fault = _TOOL_FAULTS.get(event.outcome)
        if fault is not None:
            return chunks.output_error(event.call_id, fault)
        return chunks.output(event.call_id, json_or_string(event.result))

    def _guard(self, event: GuardFired) -> list[bytes]:
        fired = {
            "kind": event.kind,
            "action": event.action,
            "detail": event.detail,
            "replacement": event.replacement if event.action == "redirect" else None,
        }
        records = [*self._chunks.part_end(), *self._chunks.data("guard", dumps(fired))]
        if event.action == "escalate":
            return [*records, *self._chunks.call(*_escalation(event, self._turn))]
        text = _guard_text(event, self._turn)
        return [*records, *self._chunks.text(text)] if text else records


def _head(media_type: str, protocol: tuple[str, str]) -> Reply:
    return Reply(200, (("content-type", media_type), protocol, *_COMMON_HEADERS))


def _guard_text(event: GuardFired, turn: TurnContext) -> str:
    return (event.replacement or "") if event.action == "redirect" else turn.refusal


def _escalation(event: GuardFired, turn: TurnContext) -> tuple[str, str, str]:
    """A call's id, tool and arguments. It stays open: a client would go on from a settled one."""
    return f"escalation-{turn.message_id}", ESCALATION_TOOL, dumps({"reason": event.detail})


def _annotation(turn: TurnContext) -> str:
    return dumps({"id": turn.message_id, "traceId": turn.trace_id})


def _v4_reason(reason: FinishReason) -> str:
    return "unknown" if reason == "other" else _REASONS[reason]


def _usage(usage: Usage | None) -> str | None:
    if usage is None:
        return None
    return f'{{"promptTokens":{usage.input_tokens},"completionTokens":{usage.output_tokens}}}'


def _metadata(event: TurnFinished) -> str:
    usage = _usage(event.usage)
    known = "" if usage is None else f'"usage":{usage},'
    reason = quote(_REASONS[event.reason])
    return f'{{{known}"finishReason":{reason},"latencyMs":{event.latency_ms}}}'
