"""Clients of Helper's "Chat API" page: the AI SDK's two stream protocols as its packages read them.

Version 4 (`parseDataStreamPart`, `processDataStream`, `callChatApi`) throws for an unknown code, a
value of the wrong shape, a result without its call, and at every error part. Version 5.0.0, the
strictest of its successors, validates each chunk against a closed list of types and members
(`uiMessageChunkSchema`) and fails for a delta whose part is not open.

Beyond what the packages check, both readers hold the stream to the documented order and its end.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.readers import (
    MAX_RECORD,
    Broken,
    Members,
    Reader,
    Tokens,
    ascii_text,
    demand,
    members,
    parsed,
    tokens,
    word,
)
from gateway.readers.eventstream import EventStream

_REASONS_V4: Final = {"stop", "length", "content-filter", "tool-calls", "error", "other", "unknown"}
_REASONS: Final = {"stop", "length", "content-filter", "tool-calls", "other"}
# Nobody is to answer this call: the real client waits for it and shows that a person will come.
_ESCALATION: Final = "request_human_support"


class DataStreamReader:
    """`text` is what `onTextPart` was given; a record is (code, value).

    `open_calls` are the tool calls without a result. An `early` reader is that of version 4.0,
    which knew no beginning of a step, no reasoning and no sources.
    """

    def __init__(self, *, early: bool = False) -> None:
        self.text = ""
        self.reasoning = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.usage: Tokens | None = None
        self.annotations: list[object] = []
        self.open_calls: set[str] = set()
        self._reads: list[bytes] = []
        self._held = 0
        self._calls: set[str] = set()
        self._in_step = False
        self._failing = False
        self._takes: dict[str, Callable[[object], None]] = {
            "0": self._text,
            "3": self._error,
            "8": self._annotate,
            "9": self._call,
            "a": self._result,
            "d": self._finish,
            "e": self._finish_step,
            "f": self._start_step,
            "g": self._reason,
            "h": self._source,
        }
        self._early = early
        if early:
            for code in "fgh":
                del self._takes[code]

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        # The package decodes nothing before a read ends in a newline.
        self._reads.append(chunk)
        if not chunk.endswith(b"\n"):
            self._held += len(chunk)
            demand(self._held <= MAX_RECORD, "a part has no end")
            return
        lines = ascii_text(b"".join(self._reads)).split("\n")
        self._reads.clear()
        self._held = 0
        for line in lines:
            if line:
                self._part(line)

    def close(self) -> None:
        """The body is over."""
        demand(not any(self._reads), "the stream ends inside a line")
        demand(not self._in_step, "the stream ends inside a step")

    def _part(self, line: str) -> None:
        code, colon, text = line.partition(":")
        demand(bool(colon), "a line without a separator")
        take = self._takes.get(code)
        if take is None:
            raise Broken("a line with an unknown code")
        value = parsed(text)
        if self.terminals:
            demand(self.terminals == ["ok"] and code in "h8", "a part after the end")
        else:
            demand(code not in "h8", "an annotation before the end")
        if self._failing:
            demand(code in "ed", "a part after the error")
        if self._early and code in "09ae":
            self._in_step = True
        take(value)
        self.records.append((code, value))

    def _text(self, value: object) -> None:
        self.text += self._inside(value)

    def _reason(self, value: object) -> None:
        self.reasoning += self._inside(value)

    def _inside(self, value: object) -> str:
        demand(self._in_step, "text outside a step")
        return _string(value)

    def _error(self, value: object) -> None:
        demand(bool(_string(value)), "an error without words")
        self._failing = self._in_step = True

    def _annotate(self, value: object) -> None:
        demand(isinstance(value, list) and not self.annotations, "annotations twice, or no array")
        if isinstance(value, list):
            self.annotations += value

    def _call(self, value: object) -> None:
        call = _exactly(value, "toolCallId", "toolName", "args")
        members(call["args"])
        demand(self._in_step, "a call outside a step")
        call_id = word(call, "toolCallId")
        self._calls.add(call_id)
        if word(call, "toolName") != _ESCALATION:
            self.open_calls.add(call_id)

    def _result(self, value: object) -> None:
        call_id = word(_exactly(value, "toolCallId", "result"), "toolCallId")
        demand(call_id in self._calls, "a result without its call")
        demand(self._in_step, "a result outside a step")
        self.open_calls.discard(call_id)

    def _start_step(self, value: object) -> None:
        demand(bool(word(_exactly(value, "messageId"), "messageId")), "an empty messageId")
        demand(not self._in_step, "a step inside a step")
        self._in_step = True

    def _finish_step(self, value: object) -> None:
        ending = members(value)
        demand(ending.get("isContinued") is False, "isContinued is not false")
        self._ending(ending, {"isContinued"})
        demand(self._in_step, "a step ends that is not open")
        self._in_step = False

    def _finish(self, value: object) -> None:
        self.usage = self._ending(members(value), set())
        demand(not self._in_step, "the message ends inside a step")
        self.terminals.append("error" if self._failing else "ok")

    def _ending(self, value: Members, more: set[str]) -> Tokens | None:
        demand(value.keys() - more - {"usage"} == {"finishReason"}, "an end with odd members")
        reason = word(value, "finishReason")
        demand(reason in _REASONS_V4, "an unknown finishReason")
        demand((reason == "error") == self._failing, "the reason is error without one, or is not")
        if "usage" not in value:
            return None
        demand(not self._failing, "usage of a failed turn")
        return _usage(value["usage"])

    def _source(self, value: object) -> None:
        source = members(value)
        demand(source.get("sourceType") == "url", "a source that is no url")
        demand(source.keys() - {"title"} == {"sourceType", "id", "url"}, "a source's odd members")
        demand(not self.annotations, "a source after the annotations")


# Type of a chunk -> members it must have, members it may have (AI SDK 5.0.0). Of `finish`, the
# reason is missing on purpose: the schema has it since 5.0.92 only.
_CHUNKS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    kind: (frozenset({"type", *required}), frozenset({"type", *required, *optional}))
    for kind, (required, optional) in {
        "start": ((), ("messageId", "messageMetadata")),
        "start-step": ((), ()),
        "text-start": (("id",), ()),
        "text-delta": (("id", "delta"), ()),
        "text-end": (("id",), ()),
        "reasoning-start": (("id",), ()),
        "reasoning-delta": (("id", "delta"), ()),
        "reasoning-end": (("id",), ()),
        "tool-input-start": (("toolCallId", "toolName"), ()),
        "tool-input-delta": (("toolCallId", "inputTextDelta"), ()),
        "tool-input-available": (("toolCallId", "toolName", "input"), ()),
        "tool-output-available": (("toolCallId", "output"), ()),
        "tool-output-error": (("toolCallId", "errorText"), ()),
        "source-url": (("sourceId", "url"), ("title",)),
        "data-guard": (("data",), ()),
        "data-moderation": (("data",), ()),
        "data-annotation": (("data",), ()),
        "finish-step": ((), ()),
        "finish": ((), ("messageMetadata",)),
        "error": (("errorText",), ()),
    }.items()
}
_ANY_JSON: Final = frozenset({"data", "input", "output", "messageMetadata"})
_BOUNDARIES: Final = frozenset({"start", "start-step", "finish-step", "finish", "error"})


class UiMessageReader:
    """`text` is that of all text parts, `open` and `calls` what `useChat` would hold; a record is
    a chunk.
    """

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.usage: Tokens | None = None
        self.message_id: object = None
        self.metadata: object = None
        self.open: dict[str, str] = {}
        self.calls: dict[str, str] = {}
        self._stream = EventStream()
        self._seen: set[str] = set()
        self._in_step = False
        self._done = False

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        for name, data in self._stream.feed(chunk):
            demand(name == "message", "an event with a name")
            demand(not self._done, "a chunk after [DONE]")
            demand(data.isascii(), "a byte is not ASCII")
            if data == "[DONE]":
                self._done = True
            else:
                self._chunk(members(parsed(data)))

    def close(self) -> None:
        """The body is over."""
        self._stream.close()
        demand(self._done, "no [DONE]")
        demand(not self.open, "a part was left open")

    def _chunk(self, chunk: Members) -> None:
        kind = word(chunk, "type")
        if kind not in _CHUNKS:
            raise Broken(f"an unknown type of chunk: {kind[:40]!r}")
        required, allowed = _CHUNKS[kind]
        demand(required <= chunk.keys() <= allowed, "a chunk with odd members")
        for name, value in chunk.items():
            demand(isinstance(value, str) or name in _ANY_JSON, "a member of the wrong type")
        demand(not self.terminals, "a chunk after the terminal one")
        demand((kind == "start") == (not self.records), "start is not the first chunk")
        if kind in _BOUNDARIES:
            self._boundary(kind, chunk)
        else:
            demand(self._in_step, "a part outside a step")
            family, _, step = kind.partition("-")
            if family in ("text", "reasoning"):
                self._part(family, step, chunk)
            elif family == "tool":
                self._tool(kind, chunk)
        self.records.append(chunk)

    def _boundary(self, kind: str, chunk: Members) -> None:
        demand(not self.open, "a step or the message ends while a part is open")
        if kind == "start":
            self.message_id = chunk["messageId"]
        elif kind == "start-step":
            demand(not self._in_step, "a step inside a step")
            self._in_step = True
        elif kind == "finish-step":
            demand(self._in_step, "a step ends that is not open")
            self._in_step = False
        elif kind == "finish":
            self._finish(chunk)
        else:
            demand(bool(chunk["errorText"]), "an error without words")
            unsettled = any(state != "settled" for state in self.calls.values())
            demand(not unsettled, "an error while a tool call is open")
            self.terminals.append("error")

    def _finish(self, chunk: Members) -> None:
        demand(not self._in_step, "the message ends inside a step")
        demand("streaming" not in self.calls.values(), "the message ends inside a call's input")
        self.metadata = chunk.get("messageMetadata")
        metadata = members(self.metadata)
        demand(metadata.keys() - {"usage"} == {"finishReason", "latencyMs"}, "odd metadata")
        demand(metadata["finishReason"] in _REASONS, "an unknown finishReason")
        demand(type(metadata["latencyMs"]) is int, "latencyMs is no whole number")
        if "usage" in metadata:
            self.usage = _usage(metadata["usage"])
        self.terminals.append("ok")

    def _part(self, family: str, step: str, chunk: Members) -> None:
        part_id = word(chunk, "id")
        if step == "start":
            demand(part_id not in self._seen, "a part's id is used twice")
            self._seen.add(part_id)
            self.open[part_id] = family
            return
        demand(self.open.get(part_id) == family, "a delta or end of a part that is not open")
        if step == "end":
            del self.open[part_id]
        elif family == "text":
            self.text += word(chunk, "delta")
        else:
            self.reasoning += word(chunk, "delta")

    def _tool(self, kind: str, chunk: Members) -> None:
        call_id = word(chunk, "toolCallId")
        state = self.calls.get(call_id)
        if kind == "tool-input-start":
            demand(state is None, "a call's id is used twice")
            demand(not self.open, "a call inside a text")
            self.calls[call_id] = "streaming"
        elif kind == "tool-input-delta":
            demand(state == "streaming", "a delta for a call that is not open")
        elif kind == "tool-input-available":
            demand(not self.open, "a call inside a text")
            escalated = chunk["toolName"] == _ESCALATION
            demand(escalated or state == "streaming", "a call's input without its start")
            self.calls[call_id] = "settled" if escalated else "called"
        else:
            demand(state in ("called", "streaming"), "a result without its call")
            self.calls[call_id] = "settled"


def refusal(body: bytes) -> str:
    """The text of a refused request."""
    answer = members(parsed(ascii_text(body)))
    demand(list(answer) == ["error"], "an error with other members than the page's")
    return word(answer, "error")


def _usage(value: object) -> Tokens:
    usage = _exactly(value, "promptTokens", "completionTokens")
    return tokens(usage, "promptTokens", "completionTokens")


def _exactly(value: object, *names: str) -> Members:
    record = members(value)
    demand(record.keys() == set(names), "a value with odd members")
    return record


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Broken("a value is no string")
    return value


READERS: Final[dict[str, Callable[[], Reader]]] = {
    "data-stream": DataStreamReader,
    "data-stream-early": partial(DataStreamReader, early=True),
    "ui-message-stream": UiMessageReader,
}
