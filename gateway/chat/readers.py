"""Bytes of an answer in, what a person should see out; one small reader per wire.

Any split of the bytes gives the same. A reader never raises for what a server sends: what it
cannot read is a `Failed`. Sources: the vendors' documents; AI SDK, "Stream Protocols".

Limit: a record has at most 1 MiB.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.errors import UpstreamProtocolError
from gateway.framing.sse import SseReader

_MAX_RECORD: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """Some more of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something beside the text: a tool's call, a guard."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The reply is whole."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The reply ended in an error; `text` is the server's."""

    text: str


Seen = Said | Noted | Ended | Failed
Document = Mapping[str, object]


class Reader(Protocol):
    """One answer's reader."""

    def feed(self, chunk: bytes) -> list[Seen]:
        """What `chunk` completes."""
        ...


class _Documents:
    """A reader whose records are JSON objects that `meaning` explains."""

    def __init__(self, meaning: Callable[[str, Document], list[Seen]]) -> None:
        self._meaning = meaning

    def _explain(self, name: str, text: str | bytes) -> list[Seen]:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return [Failed("the server sent a record that is no JSON")]
        return self._meaning(name, document) if isinstance(document, dict) else []


class EventReader(_Documents):
    """Server-sent events; `[DONE]` means nothing."""

    def __init__(self, meaning: Callable[[str, Document], list[Seen]]) -> None:
        super().__init__(meaning)
        self._frames = SseReader()

    def feed(self, chunk: bytes) -> list[Seen]:
        """What `chunk` completes."""
        try:
            events = self._frames.feed(chunk)
        except UpstreamProtocolError as error:
            return [Failed(str(error))]
        return [
            seen
            for name, data in events
            if data.strip() != b"[DONE]"
            for seen in self._explain(name, data)
        ]


class LineReader(_Documents):
    """One JSON object a line; empty lines mean nothing."""

    def __init__(self, meaning: Callable[[str, Document], list[Seen]]) -> None:
        super().__init__(meaning)
        self._lines = _Lines()

    def feed(self, chunk: bytes) -> list[Seen]:
        """What `chunk` completes."""
        lines = self._lines.feed(chunk)
        if lines is None:
            return [Failed("the server sent a line without end")]
        return [seen for line in lines for seen in self._explain("", line)]


class ArrayReader(_Documents):
    """The items of one JSON array, each as soon as it is whole."""

    def __init__(self, meaning: Callable[[str, Document], list[Seen]]) -> None:
        super().__init__(meaning)
        self._rest = ""
        self._decoder = json.JSONDecoder()

    def feed(self, chunk: bytes) -> list[Seen]:
        """What `chunk` completes."""
        # The array is ASCII, so a chunk never ends within a character.
        self._rest += chunk.decode("ascii", "replace")
        found = list(self._items())
        if len(self._rest) > _MAX_RECORD:
            self._rest = ""
            found.append(Failed("the server sent an item without end"))
        return found

    def _items(self) -> Iterator[Seen]:
        while True:
            self._rest = self._rest.lstrip("[, \t\r\n")
            if not self._rest.startswith("{"):
                return
            try:
                item, end = self._decoder.raw_decode(self._rest)
            except (ValueError, RecursionError):
                return  # not whole yet
            self._rest = self._rest[end:]
            yield from self._meaning("", item)


class DataStreamReader:
    """AI SDK 4's data stream: one `code:JSON` a line; empty lines mean nothing."""

    def __init__(self) -> None:
        self._lines = _Lines()

    def feed(self, chunk: bytes) -> list[Seen]:
        """What `chunk` completes."""
        lines = self._lines.feed(chunk)
        if lines is None:
            return [Failed("the server sent a line without end")]
        return [seen for line in lines for seen in _data_part(line)]


class _Lines:
    """Bytes in, whole lines out; None once a line passes the limit."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes] | None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _MAX_RECORD:
            self._rest = b""
            return None
        return [line for line in lines if line.strip()]


def hyponema(name: str, data: Document) -> list[Seen]:
    """Hyponema, "Response stream": named events."""
    if name == "token":
        return [Said(_text(data, "text"))]
    if name == "turn_end":
        return [Ended()]
    if name == "error":
        return [Failed(f"{_text(data, 'detail')} ({_text(data, 'error_kind')})")]
    if name == "tool_result":
        return [Noted(f"tool {_text(data, 'name')} returned")]
    if name == "guard":
        said = data.get("replacement")
        note = Noted(f"guard {_text(data, 'kind')}: {_text(data, 'action')}")
        return [note, Said(said)] if isinstance(said, str) else [note]
    return []


def hyperleap(_name: str, data: Document) -> list[Seen]:
    """Hyperleap, "Continue": items with a delta, the last with a finish reason."""
    choice = data.get("choice")
    if not isinstance(choice, dict):
        return []
    message, reason = choice.get("message"), choice.get("finish_reason")
    seen: list[Seen] = []
    if isinstance(message, dict) and _text(message, "content"):
        seen.append(Said(_text(message, "content")))
    if reason is not None:
        seen.append(Failed("the reply failed") if reason == "error" else Ended())
    return seen


def widget() -> Callable[[str, Document], list[Seen]]:
    """The widget page, "Stream events". `done` repeats the reply, or has what replaced it."""
    shown: list[str] = []

    def meaning(_name: str, data: Document) -> list[Seen]:
        kind = data.get("type")
        if kind == "token":
            shown.append(_text(data, "token"))
            return [Said(shown[-1])]
        if kind == "error":
            return [Failed(_text(data, "error"))]
        if kind != "done":
            return []
        final = _text(data, "message")
        if final == "".join(shown).strip():
            return [Ended()]
        return [Noted("the reply is replaced by:"), Said(final), Ended()]

    return meaning


def ui_message(_name: str, data: Document) -> list[Seen]:
    """AI SDK 5 and later, the UI message stream."""
    kind = data.get("type")
    if kind == "text-delta":
        return [Said(_text(data, "delta"))]
    if kind == "finish":
        return [Ended()]
    if kind == "error":
        return [Failed(_text(data, "errorText"))]
    if kind == "tool-input-available":
        return [Noted(f"tool {_text(data, 'toolName')} called")]
    return []


def _data_part(line: bytes) -> list[Seen]:
    code, _, rest = line.partition(b":")
    try:
        value = json.loads(rest)
    except (ValueError, RecursionError):
        return [Failed("the server sent a line that is no part of a data stream")]
    if code == b"0":
        return [Said(str(value))]
    if code == b"3":
        return [Failed(str(value))]
    if code == b"9" and isinstance(value, dict):
        return [Noted(f"tool {_text(value, 'toolName')} called")]
    if code == b"d" and isinstance(value, dict):
        # An error's own line comes before this one.
        return [] if value.get("finishReason") == "error" else [Ended()]
    return []


def _text(data: Document, name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""
