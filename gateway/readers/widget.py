"""Clients of the widget's "POST /v1/chat/stream" page: a line is an event, `done` the last word.

The embeddable widget shows `token`s as they come and replaces them by `done.message`, or by the
error. The reader keeps the text that came before an error: it is what the history has to hold.
"""

from collections.abc import Callable
from typing import Final

from gateway.readers import (
    Body,
    Lines,
    Members,
    Reader,
    Tokens,
    ascii_text,
    demand,
    members,
    parsed,
    word,
)

_MEMBERS: Final = {
    "start": ["type", "conversationId"],
    "token": ["type", "token"],
    "done": ["type", "message", "conversationId"],
    "error": ["type", "error"],
}


class LineReader:
    """`text` is what the widget shows in the end, `typed` what its tokens said."""

    def __init__(self) -> None:
        self.text = ""
        self.typed = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.usage: Tokens | None = None
        self._lines = Lines()
        self._conversation: object = None

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        for line in self._lines.feed(chunk):
            self._event(members(parsed(ascii_text(line))))

    def close(self) -> None:
        """The body is over."""
        self._lines.close()

    def _event(self, event: Members) -> None:
        demand(not self.terminals, "a line after the terminal one")
        kind = word(event, "type")
        demand(kind in _MEMBERS, "a type that the page does not have")
        demand(list(event) == _MEMBERS[kind], "a line with other members than the page's")
        demand((kind == "start") == (not self.records), "start is not the first line")
        self._take(kind, event)
        self.records.append(event)

    def _take(self, kind: str, event: Members) -> None:
        if kind == "token":
            token = word(event, "token")
            self.typed += token
            self.text += token
        elif kind == "start":
            self._conversation = word(event, "conversationId")
        elif kind == "done":
            demand(event["conversationId"] == self._conversation, "done is of another conversation")
            self.text = word(event, "message")
            self.terminals.append("ok")
        else:
            demand(event["error"] == "Internal server error", "an error in other words")
            self.terminals.append("error")


class OneShotReader:
    """The answer of `/v1/chat`, one JSON object."""

    def __init__(self) -> None:
        self.text = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.usage: Tokens | None = None
        self._body = Body()

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        self._body.feed(chunk)

    def close(self) -> None:
        """The body is over."""
        answer = self._body.close()
        self.records.append(answer)
        if list(answer) == ["error"]:
            self.terminals.append("error")
            return
        demand(list(answer) == ["conversationId", "message"], "other members than the page's")
        demand(bool(word(answer, "conversationId")), "an empty conversationId")
        self.text = word(answer, "message")
        self.terminals.append("ok")


def refusal(body: bytes) -> str:
    """The text of a refused request."""
    answer = members(parsed(ascii_text(body)))
    demand(list(answer) == ["error"], "an error with other members than the page's")
    return word(answer, "error")


READERS: Final[dict[str, Callable[[], Reader]]] = {"ndjson": LineReader, "one-shot": OneShotReader}
