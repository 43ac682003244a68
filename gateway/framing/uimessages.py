"""The AI SDK's UI message stream, versions 5 to 7: server-sent events, one JSON chunk each.

Source: "Stream Protocols", section "UI Message Stream Protocol", of the AI SDK documentation. A
chunk is `data: {"type": …}` and a blank line; the stream ends with `data: [DONE]`. Clients skip
comments and fail on a type that they do not know, versions before 5.0.217, 6.0.231 and 7.0.32
also on a member: this writes only what 5.0.0 reads. JSON is ASCII and has no line ends.

    start (start-step chunk* finish-step)*   then   finish [DONE]   or   error [DONE]

`ChunkWriter` opens and closes steps, text parts and reasoning parts, and settles tool calls
before an error; what it is given is text, or JSON text where it says so. Part ids are counted.
"""

from collections.abc import Sequence
from typing import Final, Literal

from gateway.framing.asciijson import quote

MEDIA_TYPE: Final = "text/event-stream"
HEADER: Final = ("x-vercel-ai-ui-message-stream", "v1")
KEEP_ALIVE: Final = b": keep-alive\n\n"

PartKind = Literal["text", "reasoning"]

_DONE: Final = b"data: [DONE]\n\n"
_START_STEP: Final = b'data: {"type":"start-step"}\n\n'
_FINISH_STEP: Final = b'data: {"type":"finish-step"}\n\n'


class ChunkWriter:
    """The chunks of one message."""

    __slots__ = ("_delta", "_open", "_parts", "_step_over", "_unsettled")

    def __init__(self) -> None:
        self._open: PartKind | None = None
        self._delta = b""
        self._parts = 0
        self._step_over = False
        self._unsettled: dict[str, None] = {}

    def start(self, message_id: str) -> list[bytes]:
        """The message and its first step."""
        return [_chunk("start", messageId=quote(message_id)), _START_STEP]

    def text(self, text: str, kind: PartKind = "text") -> Sequence[bytes]:
        """Some more of a text or reasoning part."""
        if self._open == kind:
            return (self._delta + quote(text).encode("ascii") + b"}\n\n",)
        return [*self._open_part(kind), self._delta + quote(text).encode("ascii") + b"}\n\n"]

    def call_start(self, call_id: str, name: str) -> list[bytes]:
        """A tool call whose input follows."""
        self._unsettled[call_id] = None
        start = _chunk("tool-input-start", toolCallId=quote(call_id), toolName=quote(name))
        return [*self._between(), start]

    def call_delta(self, call_id: str, text: str) -> list[bytes]:
        """Some more of a call's input text."""
        return [_chunk("tool-input-delta", toolCallId=quote(call_id), inputTextDelta=quote(text))]

    def call(self, call_id: str, name: str, value: str) -> list[bytes]:
        """A whole tool call; its input is JSON text."""
        ids = {"toolCallId": quote(call_id), "toolName": quote(name)}
        return [*self._between(), _chunk("tool-input-available", **ids, input=value)]

    def output(self, call_id: str, value: str) -> list[bytes]:
        """A tool's answer, JSON text."""
        self._unsettled.pop(call_id, None)
        output = _chunk("tool-output-available", toolCallId=quote(call_id), output=value)
        return [*self._between(), output]

    def output_error(self, call_id: str, text: str) -> list[bytes]:
        """A tool's failure."""
        self._unsettled.pop(call_id, None)
        return [*self._between(), _output_error(call_id, text)]

    def source(self, source_id: str, url: str, title: str | None) -> list[bytes]:
        """A source of the reply; an open part stays open."""
        members = {"sourceId": quote(source_id), "url": quote(url)}
        if title is not None:
            members["title"] = quote(title)
        return [*self._next_step(), _chunk("source-url", **members)]

    def data(self, name: str, value: str) -> list[bytes]:
        """A chunk of the application's own, JSON text; an open part stays open."""
        return [*self._next_step(), _chunk(f"data-{name}", data=value)]

    def part_end(self) -> list[bytes]:
        """Closes the open part, if any."""
        if self._open is None:
            return []
        end = _chunk(f"{self._open}-end", id=quote(f"{self._open}-{self._parts}"))
        self._open = None
        return [end]

    def step_end(self) -> list[bytes]:
        """Ends the step's parts. `finish-step` waits: what ends the message may come before it."""
        records = self._between()
        self._step_over = True
        return records

    def finish(self, annotation: str, metadata: str) -> list[bytes]:
        """Ends the step, with `data-annotation` at its end, and the message; both JSON text."""
        return [
            *self.part_end(),
            _chunk("data-annotation", data=annotation),
            _FINISH_STEP,
            _chunk("finish", messageMetadata=metadata),
            _DONE,
        ]

    def error(self, text: str, *, unsettled: str) -> list[bytes]:
        """Ends the message as failed; calls without an answer get `unsettled` for one."""
        records = self.part_end()
        records += [_output_error(call_id, unsettled) for call_id in self._unsettled]
        if self._step_over:
            records.append(_FINISH_STEP)
        return [*records, _chunk("error", errorText=quote(text)), _DONE]

    def _between(self) -> list[bytes]:
        """Closes the open part and, if a step is over, goes on to the next."""
        return [*self.part_end(), *self._next_step()]

    def _next_step(self) -> list[bytes]:
        if not self._step_over:
            return []
        self._step_over = False
        return [_FINISH_STEP, _START_STEP]

    def _open_part(self, kind: PartKind) -> list[bytes]:
        records = self._between()
        self._parts += 1
        part_id = quote(f"{kind}-{self._parts}")
        self._open = kind
        self._delta = f'data: {{"type":"{kind}-delta","id":{part_id},"delta":'.encode("ascii")
        return [*records, _chunk(f"{kind}-start", id=part_id)]


def _output_error(call_id: str, text: str) -> bytes:
    return _chunk("tool-output-error", toolCallId=quote(call_id), errorText=quote(text))


def _chunk(kind: str, **members: str) -> bytes:
    inner = "".join(f',"{name}":{value}' for name, value in members.items())
    return f'data: {{"type":"{kind}"{inner}}}\n\n'.encode("ascii")
