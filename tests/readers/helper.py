"""Clients of Helper's "Chat API" page: the AI SDK's two stream protocols as its packages read them.

Version 4 (`parseDataStreamPart`, `processDataStream`, `callChatApi`) throws for an unknown code, a
value of the wrong shape, a result without its call, and at every error part. Version 5.0.0, the
strictest of its successors, validates each chunk against a closed list of types and members
(`uiMessageChunkSchema`) and fails for a delta whose part is not open.

Beyond what the packages check, both readers hold the stream to the documented order and its end.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from tests.readers.eventstream import EventStream

REASONS_V4: Final = {"stop", "length", "content-filter", "tool-calls", "error", "other", "unknown"}
REASONS: Final = REASONS_V4 - {"unknown"}


class DataStreamReader:
    """`text` is what `onTextPart` was given; a record is (code, value)."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.annotations: list[object] = []
        self._reads: list[bytes] = []
        self._calls: set[str] = set()
        self._in_step = False
        self._failing = False

    def feed(self, chunk: bytes) -> None:
        # The package decodes nothing before a read ends in a newline.
        self._reads.append(chunk)
        if chunk.endswith(b"\n"):
            lines = b"".join(self._reads).decode("ascii").split("\n")
            self._reads.clear()
            for line in lines:
                if line:
                    self._part(line)

    def close(self) -> None:
        assert not b"".join(self._reads), "the stream ends inside a line"
        assert not self._in_step, "the stream ends inside a step"

    def _part(self, line: str) -> None:
        code, colon, text = line.partition(":")
        assert colon, "No separator found."
        take = _PARTS.get(code)
        assert take is not None, f"Invalid code {code}."
        value = json.loads(text, parse_constant=_refuse)
        self.records.append((code, value))
        if self.terminals:
            assert (self.terminals, code in "h8") == (["ok"], True), "a part after the end"
        else:
            assert code not in "h8", "an annotation before the end"
        if self._failing:
            assert code in "ed", "a part after the error"
        take(self, value)

    def _text(self, value: object) -> None:
        self.text += self._inside(value)

    def _reason(self, value: object) -> None:
        self.reasoning += self._inside(value)

    def _inside(self, value: object) -> str:
        assert isinstance(value, str)
        assert self._in_step, "text outside a step"
        return value

    def _error(self, value: object) -> None:
        assert isinstance(value, str)
        assert value
        self._failing = self._in_step = True

    def _annotate(self, value: object) -> None:
        assert isinstance(value, list)
        assert not self.annotations
        self.annotations += value

    def _call(self, value: object) -> None:
        assert isinstance(value, dict)
        assert set(value) == {"toolCallId", "toolName", "args"}
        assert isinstance(value["toolCallId"], str)
        assert isinstance(value["toolName"], str)
        assert isinstance(value["args"], dict)
        assert self._in_step
        self._calls.add(value["toolCallId"])

    def _result(self, value: object) -> None:
        assert isinstance(value, dict)
        assert set(value) == {"toolCallId", "result"}
        assert value["toolCallId"] in self._calls, "tool_result must be preceded by a tool_call"
        assert self._in_step

    def _start_step(self, value: object) -> None:
        assert isinstance(value, dict)
        assert set(value) == {"messageId"}
        assert isinstance(value["messageId"], str)
        assert value["messageId"]
        assert not self._in_step
        self._in_step = True

    def _finish_step(self, value: object) -> None:
        assert isinstance(value, dict)
        assert value["isContinued"] is False
        self._check_ending(value, {"isContinued"})
        assert self._in_step
        self._in_step = False

    def _finish(self, value: object) -> None:
        assert isinstance(value, dict)
        self._check_ending(value, set())
        assert not self._in_step
        self.terminals.append("error" if self._failing else "ok")

    def _check_ending(self, value: Mapping[str, object], more: set[str]) -> None:
        assert value.keys() - more - {"usage"} == {"finishReason"}
        assert value["finishReason"] in REASONS_V4
        assert (value["finishReason"] == "error") == self._failing
        if "usage" in value:
            _check_usage(value["usage"])

    def _source(self, value: object) -> None:
        assert isinstance(value, dict)
        assert value["sourceType"] == "url"
        assert set(value) - {"title"} == {"sourceType", "id", "url"}
        assert not self.annotations, "a source after the annotations"


_PARTS: Final[dict[str, Callable[[DataStreamReader, object], None]]] = {
    "0": DataStreamReader._text,
    "3": DataStreamReader._error,
    "8": DataStreamReader._annotate,
    "9": DataStreamReader._call,
    "a": DataStreamReader._result,
    "d": DataStreamReader._finish,
    "e": DataStreamReader._finish_step,
    "f": DataStreamReader._start_step,
    "g": DataStreamReader._reason,
    "h": DataStreamReader._source,
}

# Type of a chunk -> members it must have, members it may have (AI SDK 5.0.0). Of `finish`, the
# reason is missing on purpose: the schema has it since 5.0.92 only.
CHUNKS: Final[dict[str, tuple[set[str], set[str]]]] = {
    "start": (set(), {"messageId", "messageMetadata"}),
    "start-step": (set(), set()),
    "text-start": ({"id"}, set()),
    "text-delta": ({"id", "delta"}, set()),
    "text-end": ({"id"}, set()),
    "reasoning-start": ({"id"}, set()),
    "reasoning-delta": ({"id", "delta"}, set()),
    "reasoning-end": ({"id"}, set()),
    "tool-input-start": ({"toolCallId", "toolName"}, set()),
    "tool-input-delta": ({"toolCallId", "inputTextDelta"}, set()),
    "tool-input-available": ({"toolCallId", "toolName", "input"}, set()),
    "tool-output-available": ({"toolCallId", "output"}, set()),
    "tool-output-error": ({"toolCallId", "errorText"}, set()),
    "source-url": ({"sourceId", "url"}, {"title"}),
    "data-guard": ({"data"}, set()),
    "data-moderation": ({"data"}, set()),
    "data-annotation": ({"data"}, set()),
    "finish-step": (set(), set()),
    "finish": (set(), {"messageMetadata"}),
    "error": ({"errorText"}, set()),
}
_ANY_JSON: Final = {"data", "input", "output", "messageMetadata"}


class UiMessageReader:
    """`text` is that of all text parts, `parts` what `useChat` would hold; a record is a chunk."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.message_id: object = None
        self.metadata: object = None
        self.open: dict[str, str] = {}
        self.calls: dict[str, str] = {}
        self._stream = EventStream()
        self._seen: set[str] = set()
        self._in_step = False
        self._done = False

    def feed(self, chunk: bytes) -> None:
        for name, data in self._stream.feed(chunk):
            assert name == "message"
            assert not self._done, "a chunk after [DONE]"
            assert data.isascii()
            if data == "[DONE]":
                self._done = True
            else:
                self._chunk(json.loads(data, parse_constant=_refuse))

    def close(self) -> None:
        self._stream.close()
        assert self._done, "no [DONE]"
        assert not self.open, "a part was left open"

    def _chunk(self, chunk: dict[str, object]) -> None:
        kind = str(chunk["type"])
        assert kind in CHUNKS, f"unknown type {kind}"
        required, optional = CHUNKS[kind]
        assert required <= chunk.keys() - {"type"} <= required | optional, chunk
        for name, value in chunk.items():
            assert isinstance(value, str) or name in _ANY_JSON, chunk
        assert not self.terminals, "a chunk after the terminal one"
        assert (kind == "start") == (not self.records)
        self.records.append(chunk)
        family = kind.partition("-")[0]
        if kind in ("start", "start-step", "finish-step", "finish", "error"):
            self._boundary(kind, chunk)
            return
        assert self._in_step, f"{kind} outside a step"
        if family in ("text", "reasoning"):
            self._part(kind, chunk)
        elif family == "tool":
            self._tool(kind, chunk)

    def _boundary(self, kind: str, chunk: dict[str, object]) -> None:
        assert not self.open, f"{kind} while a part is open"
        if kind == "start":
            self.message_id = chunk["messageId"]
        elif kind == "start-step":
            assert not self._in_step
            self._in_step = True
        elif kind == "finish-step":
            assert self._in_step
            self._in_step = False
        elif kind == "finish":
            assert not self._in_step
            self.metadata = chunk["messageMetadata"]
            _check_metadata(self.metadata)
            self.terminals.append("ok")
        else:
            assert chunk["errorText"]
            assert all(state == "settled" for state in self.calls.values()), "an unsettled call"
            self.terminals.append("error")

    def _part(self, kind: str, chunk: dict[str, object]) -> None:
        family, _, step = kind.partition("-")
        part_id = str(chunk["id"])
        if step == "start":
            assert part_id not in self._seen, "a part's id is used twice"
            self._seen.add(part_id)
            self.open[part_id] = family
            return
        assert self.open.get(part_id) == family, f"{kind} for a part that is not open"
        if step == "end":
            del self.open[part_id]
        elif family == "text":
            self.text += str(chunk["delta"])
        else:
            self.reasoning += str(chunk["delta"])

    def _tool(self, kind: str, chunk: dict[str, object]) -> None:
        call_id = str(chunk["toolCallId"])
        state = self.calls.get(call_id)
        if kind == "tool-input-start":
            assert state is None
            assert not self.open, "a call inside a text"
            self.calls[call_id] = "streaming"
        elif kind == "tool-input-delta":
            assert state == "streaming", "a delta for a call that is not open"
        elif kind == "tool-input-available":
            assert not self.open, "a call inside a text"
            # An escalation comes whole: nobody is to answer it.
            escalated = chunk["toolName"] == "request_human_support"
            assert escalated or state == "streaming"
            self.calls[call_id] = "settled" if escalated else "called"
        else:
            assert state in ("called", "streaming"), "a result without its call"
            self.calls[call_id] = "settled"


def _check_usage(value: object) -> None:
    assert isinstance(value, dict)
    assert set(value) == {"promptTokens", "completionTokens"}
    assert all(type(count) is int for count in value.values())


def _check_metadata(value: object) -> None:
    assert isinstance(value, dict)
    assert value.keys() - {"usage"} == {"finishReason", "latencyMs"}
    assert value["finishReason"] in REASONS - {"error"}
    assert type(value["latencyMs"]) is int
    if "usage" in value:
        _check_usage(value["usage"])


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


READERS: Final = {"data-stream": DataStreamReader, "ui-message-stream": UiMessageReader}
