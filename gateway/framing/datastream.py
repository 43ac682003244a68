"""The AI SDK's data stream protocol, version 4: one part per line, `CODE:JSON` and a newline.

Source: "Stream Protocols", section "Data Stream Protocol", of the AI SDK 4 documentation. Its
parser collects reads until one ends in a newline, so every part ends in one; it skips blank
lines, so a lone newline is a keep-alive; a carriage return or a comment would break it. JSON is
ASCII and has no line ends.

    (f (0 | g | 9 | a)* e)*   then   d h* 8   or   3 e d

Version 4.0 knew neither `f` nor `g` nor `h`, and its parser fails for every code that it does not
know. In an `early` stream a step has no beginning of its own, and the message begins with an empty
`0`: its client shows, and finishes, a message only once something of it has come.

`PartWriter` opens and closes the steps; what it is given is text, or JSON text where it says so.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.framing.asciijson import quote

MEDIA_TYPE: Final = "text/plain; charset=utf-8"
HEADER: Final = ("x-vercel-ai-data-stream", "v1")
KEEP_ALIVE: Final = b"\n"


class PartWriter:
    """The parts of one message, each a record that ends in a newline."""

    __slots__ = ("_begun", "_early", "_in_step", "_message_id")

    def __init__(self, message_id: str, *, early: bool = False) -> None:
        self._message_id = message_id
        self._early = early
        self._begun = False
        self._in_step = False

    def step(self) -> list[bytes]:
        """Opens a step (`f`; `0` in an early stream's first), unless one is open."""
        if self._in_step:
            return []
        begins, self._begun, self._in_step = not self._begun, True, True
        if self._early:
            return [_part("0", '""')] if begins else []
        return [_object("f", messageId=quote(self._message_id))]

    def text(self, text: str) -> Sequence[bytes]:
        """Some more of the reply (`0`)."""
        record = b"0:" + quote(text).encode("ascii") + b"\n"
        return (record,) if self._in_step else [*self.step(), record]

    def reasoning(self, text: str) -> list[bytes]:
        """Some more of the model's reasoning (`g`); an early client has no word for it."""
        return [] if self._early else [*self.step(), _part("g", quote(text))]

    def call(self, call_id: str, name: str, arguments: str) -> list[bytes]:
        """A whole tool call (`9`); clients take no arguments but a JSON object's."""
        args = arguments if arguments.startswith("{") else "{}"
        record = _object("9", toolCallId=quote(call_id), toolName=quote(name), args=args)
        return [*self.step(), record]

    def result(self, call_id: str, value: str) -> list[bytes]:
        """A call's result (`a`), JSON text."""
        return [*self.step(), _object("a", toolCallId=quote(call_id), result=value)]

    def step_end(self, reason: str, usage: str | None) -> list[bytes]:
        """Ends a step (`e`); `usage` is JSON text."""
        opening = self.step()
        self._in_step = False
        return [*opening, _object("e", **_ending(reason, usage), isContinued="false")]

    def end(self, reason: str, usage: str | None) -> list[bytes]:
        """Ends the step that is open, and the message (`d`)."""
        records = self.step_end(reason, None) if self._in_step else []
        return [*records, _object("d", **_ending(reason, usage))]

    def error(self, text: str) -> list[bytes]:
        """Ends the message as failed (`3`, `e`, `d`)."""
        self._in_step = True
        return [_part("3", quote(text)), *self.end("error", None)]


def source(source_id: str, url: str, title: str | None) -> bytes:
    """A source of the reply (`h`)."""
    members = {"sourceType": '"url"', "id": quote(source_id), "url": quote(url)}
    if title is not None:
        members["title"] = quote(title)
    return _object("h", **members)


def annotations(values: Iterable[str]) -> bytes:
    """Facts about the message (`8`), each JSON text."""
    return _part("8", f"[{','.join(values)}]")


def _part(code: str, value: str) -> bytes:
    return f"{code}:{value}\n".encode("ascii")


def _object(code: str, **members: str) -> bytes:
    inner = ",".join(f'"{name}":{value}' for name, value in members.items())
    return f"{code}:{{{inner}}}\n".encode("ascii")


def _ending(reason: str, usage: str | None) -> dict[str, str]:
    members = {"finishReason": quote(reason)}
    if usage is not None:
        members["usage"] = usage
    return members
