"""Clients of Hyperleap's "Continue" operations: append `choice.message.content` of every item.

The array reader takes items off as soon as they are whole; in the end the body has to be one JSON
text. `text` leaves out messages with the role "tool".
"""

import json
from collections.abc import Callable
from typing import Any, Final

from tests.readers import Reader
from tests.readers.eventstream import EventStream

_ITEM: Final = ["choice", "usage", "messageId", "runId", "citations"]
_CHOICE: Final = ["finish_reason", "index", "message", "moderation_results"]
_MESSAGE: Final = ["role", "content", "toolCallId", "name"]
_ANSWER: Final = [
    *["id", "object", "usage", "created", "choices", "messageId", "runId", "httpRequestId"],
    *["citations", "prompt_moderations"],
]


class _Items:
    def __init__(self) -> None:
        self.text = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.citations: list[object] = []
        self.moderation: list[object] = []

    def item(self, text: str) -> None:
        item = json.loads(text)
        assert not self.terminals, "an item after the last one"
        assert list(item) == _ITEM
        choice = item["choice"]
        self.records.append(item)
        self._choice(choice)
        if choice["finish_reason"] is None:
            assert item["usage"] is None
        else:
            assert choice["message"]["content"] == ""
            self.terminals.append("error" if choice["finish_reason"] == "error" else "ok")
        self.citations += item["citations"] or []

    def _choice(self, choice: dict[str, Any]) -> None:
        assert list(choice) == _CHOICE
        assert list(choice["message"]) == _MESSAGE
        assert choice["index"] == 0
        if choice["message"]["role"] != "tool":
            self.text += choice["message"]["content"]
        if choice["moderation_results"]:
            self.moderation += choice["moderation_results"]["categoryResults"]


class ArrayReader(_Items):
    def __init__(self) -> None:
        super().__init__()
        self._whole = ""
        self._pending = ""
        self._closed = False

    def feed(self, chunk: bytes) -> None:
        self._whole += chunk.decode("ascii")
        self._pending += chunk.decode("ascii")
        while (rest := self._pending.lstrip(" \t\r\n")) and self._next(rest):
            pass

    def _next(self, rest: str) -> bool:
        assert not self._closed, "bytes after the closing bracket"
        if rest == "]":
            self._closed = True
            self._pending = ""
            return False
        assert rest[0] == ("," if self.records else "[")
        body = rest[1:].lstrip(" \t\r\n")
        try:
            _, end = json.JSONDecoder().raw_decode(body)
        except json.JSONDecodeError:
            return False
        self.item(body[:end])
        self._pending = body[end:]
        return True

    def close(self) -> None:
        assert self._closed
        assert json.loads(self._whole) == self.records


class EventReader(_Items):
    def __init__(self) -> None:
        super().__init__()
        self._stream = EventStream()

    def feed(self, chunk: bytes) -> None:
        for name, data in self._stream.feed(chunk):
            assert name == "message"
            self.item(data)

    def close(self) -> None:
        self._stream.close()


class LineReader(_Items):
    def __init__(self) -> None:
        super().__init__()
        self._pending = ""

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk.decode("ascii")).split("\n")
        for line in lines:
            if line.strip():
                self.item(line)

    def close(self) -> None:
        assert not self._pending


class OneShotReader(_Items):
    def __init__(self) -> None:
        super().__init__()
        self._body = b""

    def feed(self, chunk: bytes) -> None:
        self._body += chunk

    def close(self) -> None:
        answer = json.loads(self._body.decode("ascii"))
        self.records.append(answer)
        if "error" in answer:
            assert list(answer["error"])[:2] == ["code", "message"]
            self.terminals.append("error")
            return
        assert list(answer) == _ANSWER
        self._choice(answer["choices"][0])
        self.citations += answer["citations"]
        self.terminals.append("ok")


READERS: Final[dict[str, Callable[[], Reader]]] = {
    "array": ArrayReader,
    "sse": EventReader,
    "ndjson": LineReader,
    "one-shot": OneShotReader,
}
