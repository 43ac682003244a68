"""Bytes of an answer in, what a person should see out.

The strict readers of `gateway.readers` read them; this says what their records mean to a person.
Any split of the bytes gives the same. Nothing that a server sends raises: what breaks a rule of
its wire is a `Failed`, and nothing is read after it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.readers import Broken, helper, hyperleap, hyponema, widget
from gateway.readers import Reader as StrictReader


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
Meaning = Callable[[object], list[Seen]]


class Reader(Protocol):
    """One answer's reader."""

    def feed(self, chunk: bytes) -> list[Seen]:
        """What `chunk` completes."""
        ...


def reader(dialect: str, content_type: str) -> Reader:
    """A reader for an answer of status 200 to a message in that dialect."""
    if dialect == "hyponema":
        return _Shown(hyponema.Reader(), _hyponema)
    if dialect == "hyperleap":
        return _Shown(hyperleap.ArrayReader(), _hyperleap)
    if dialect == "widget":
        return _Shown(widget.LineReader(), _widget())
    if content_type.startswith("text/event-stream"):
        return _Shown(helper.UiMessageReader(), _ui_message)
    return _Shown(helper.DataStreamReader(), _data_stream)


class _Shown:
    def __init__(self, strict: StrictReader, meaning: Meaning) -> None:
        self._strict = strict
        self._meaning = meaning
        self._shown = 0
        self._broken = False

    def feed(self, chunk: bytes) -> list[Seen]:
        if self._broken:
            return []
        failure: list[Seen] = []
        try:
            self._strict.feed(chunk)
        except Broken as rule:
            self._broken = True
            failure.append(Failed(f"the reply is not as documented: {rule}"))
        fresh = self._strict.records[self._shown :]
        self._shown += len(fresh)
        return [seen for record in fresh for seen in self._meaning(record)] + failure


def _hyponema(record: object) -> list[Seen]:
    name, value = record if isinstance(record, tuple) else ("", None)
    data = _members(value)
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


def _hyperleap(record: object) -> list[Seen]:
    choice = _members(_members(record).get("choice"))
    message, reason = _members(choice.get("message")), choice.get("finish_reason")
    if _text(message, "role") == "tool":
        return [Noted(f"tool {_text(message, 'name')} returned")]
    seen: list[Seen] = [Said(text)] if (text := _text(message, "content")) else []
    if reason is not None:
        seen.append(Failed("the reply failed") if reason == "error" else Ended())
    return seen


def _widget() -> Meaning:
    """`done` repeats the reply, or has what replaced it."""
    shown: list[str] = []

    def meaning(record: object) -> list[Seen]:
        data = _members(record)
        kind = _text(data, "type")
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


def _ui_message(record: object) -> list[Seen]:
    data = _members(record)
    kind = _text(data, "type")
    if kind == "text-delta":
        return [Said(_text(data, "delta"))]
    if kind == "finish":
        return [Ended()]
    if kind == "error":
        return [Failed(_text(data, "errorText"))]
    if kind == "tool-input-available":
        return [Noted(f"tool {_text(data, 'toolName')} called")]
    return []


def _data_stream(record: object) -> list[Seen]:
    code, value = record if isinstance(record, tuple) else ("", None)
    data = _members(value)
    if code == "0":
        return [Said(str(value))]
    if code == "3":
        return [Failed(str(value))]
    if code == "9":
        return [Noted(f"tool {_text(data, 'toolName')} called")]
    if code == "d":
        # An error's own part comes before this one.
        return [] if data.get("finishReason") == "error" else [Ended()]
    return []


def _members(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""
