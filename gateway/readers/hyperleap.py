"""Clients of Hyperleap's "Continue" operations: append `choice.message.content` of every item.

The array reader takes items off as soon as they are whole; in the end the body has to be one JSON
text. `text` leaves out messages with the role "tool". Members are those of the vendor's OpenAPI
file: `GenAiStreamingChatChoice`, and `GenAiChatResponse` for the one-shot operations.
"""

import json
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
    tokens,
    word,
)
from gateway.readers.eventstream import EventStream

_ITEM: Final = ["choice", "usage", "messageId", "runId", "citations"]
_CHOICE: Final = ["finish_reason", "index", "message", "moderation_results"]
_MESSAGE: Final = ["role", "content", "toolCallId", "name"]
_USAGE: Final = ["prompt_tokens", "completion_tokens", "total_tokens"]
_ANSWER: Final = [
    *["id", "object", "usage", "created", "choices", "messageId", "runId", "httpRequestId"],
    *["citations", "prompt_moderations"],
]
_REASONS: Final = ("stop", "length", "tool_calls", "content_filter", "other")
_WHITE_SPACE: Final = " \t\r\n"
# An item has less than 16 KiB, because public clients parse each read as whole items.
_MAX_ITEM: Final = 64 * 1024


class _Items:
    """What the framings have in common: the meaning of one item after another."""

    def __init__(self) -> None:
        self.text = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.usage: Tokens | None = None
        self.citations: list[object] = []
        self.moderation: list[object] = []
        self._ids: tuple[object, object] | None = None

    def _item(self, item: Members) -> None:
        demand(not self.terminals, "an item after the last one")
        demand(list(item) == _ITEM, "an item with other members than the schema's")
        ids = item["messageId"], item["runId"]
        self._ids = self._ids or ids
        demand(ids == self._ids and all(ids), "messageId or runId changed or is empty")
        choice = members(item["choice"])
        content = self._choice(choice)
        if choice["finish_reason"] is None:
            demand(item["usage"] is None, "usage before the last item")
        else:
            demand(content == "", "the last item has text")
            self._end(word(choice, "finish_reason"), item["usage"])
        self.citations += _array(item["citations"])
        self.records.append(item)

    def _end(self, reason: str, usage: object) -> None:
        demand(reason == "error" or reason in _REASONS, "an unknown finish_reason")
        demand(reason != "error" or usage is None, "usage of a failed turn")
        self.usage = _usage(usage)
        self.terminals.append("error" if reason == "error" else "ok")

    def _choice(self, choice: Members) -> str:
        demand(list(choice) == _CHOICE, "a choice with other members than the schema's")
        message = members(choice["message"])
        demand(list(message) == _MESSAGE, "a message with other members than the schema's")
        demand(choice["index"] == 0, "index is not 0")
        content = word(message, "content")
        if word(message, "role") != "tool":
            self.text += content
        if choice["moderation_results"] is not None:
            results = members(choice["moderation_results"])
            self.moderation += _array(results.get("categoryResults"))
        return content


class ArrayReader(_Items):
    """The streamed array: `[item`, `,item` …, `]`."""

    def __init__(self) -> None:
        super().__init__()
        self._pending = ""
        self._closed = False
        self._decoder = json.JSONDecoder()

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        self._pending += ascii_text(chunk)
        begin = 0
        while (after := self._next(begin)) is not None:
            begin = after
        self._pending = self._pending[begin:].lstrip(_WHITE_SPACE)
        demand(len(self._pending) <= _MAX_ITEM, "an item has no end")

    def _next(self, begin: int) -> int | None:
        """Where the item after `begin` ends; None if it is not whole yet."""
        text = self._pending
        begin = _skip(text, begin)
        if begin == len(text):
            return None
        demand(not self._closed, "bytes after the closing bracket")
        if text[begin] == "]":
            demand(bool(self.records), "an array without an item")
            self._closed = True
            return begin + 1
        demand(text[begin] == ("," if self.records else "["), "a comma or bracket is missing")
        begin = _skip(text, begin + 1)
        if begin == len(text):
            return None
        demand(text[begin] == "{", "an item is no JSON object")
        try:
            item, end = self._decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            return None  # not whole yet, or never: then `close` finds it here
        self._item(members(item))
        return end

    def close(self) -> None:
        """The body is over."""
        demand(self._closed, "no closing bracket")


class EventReader(_Items):
    """The same items as server-sent events."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = EventStream()

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        for name, data in self._stream.feed(chunk):
            demand(name == "message", "an event with a name")
            demand(data.isascii(), "a byte is not ASCII")
            self._item(members(parsed(data)))

    def close(self) -> None:
        """The body is over."""
        self._stream.close()


class LineReader(_Items):
    """The same items, one a line."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = Lines()

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        for line in self._lines.feed(chunk):
            self._item(members(parsed(ascii_text(line))))

    def close(self) -> None:
        """The body is over."""
        self._lines.close()


class OneShotReader(_Items):
    """The answer of the one-shot operations."""

    def __init__(self) -> None:
        super().__init__()
        self._body = Body()

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        self._body.feed(chunk)

    def close(self) -> None:
        """The body is over."""
        answer = self._body.close()
        self.records.append(answer)
        if "error" in answer:
            _error(answer)
            self.terminals.append("error")
            return
        demand(list(answer) == _ANSWER, "other members than the schema's")
        choices = _array(answer["choices"])
        demand(len(choices) == 1, "not exactly one choice")
        choice = members(choices[0])
        self._choice(choice)
        self.citations += _array(answer["citations"])
        demand(word(choice, "finish_reason") in _REASONS, "an unknown finish_reason")
        self._end(word(choice, "finish_reason"), answer["usage"])


def refusal(body: bytes) -> str:
    """The text of a refused request (page "Errors")."""
    return _error(members(parsed(ascii_text(body))))


def _error(answer: Members) -> str:
    demand(list(answer) == ["error"], "an error with other members than the page's")
    error = members(answer["error"])
    demand(list(error) in (["code", "message"], ["code", "message", "details"]), "an odd error")
    demand(bool(word(error, "code")), "an empty code")
    return word(error, "message")


def _usage(value: object) -> Tokens | None:
    if value is None:
        return None
    usage = members(value)
    demand(list(usage) == _USAGE, "usage with other members than the schema's")
    counts = tokens(usage, "prompt_tokens", "completion_tokens")
    demand(usage["total_tokens"] == sum(counts), "total_tokens is not the sum")
    return counts


def _array(value: object) -> list[object]:
    if value is None:
        return []
    demand(isinstance(value, list), "no array where the schema has one")
    return list(value) if isinstance(value, list) else []


def _skip(text: str, begin: int) -> int:
    while begin < len(text) and text[begin] in _WHITE_SPACE:
        begin += 1
    return begin


READERS: Final[dict[str, Callable[[], Reader]]] = {
    "array": ArrayReader,
    "sse": EventReader,
    "ndjson": LineReader,
    "one-shot": OneShotReader,
}
