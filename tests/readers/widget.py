"""Clients of the widget's "POST /v1/chat/stream" page: a line is an event, `done` the last word.

The embeddable widget shows `token`s as they come and replaces them by `done.message`; on `error`
it keeps what a person has read and adds a retry button.
"""

import json
from collections.abc import Callable
from typing import Final

from tests.readers import Reader


class LineReader:
    def __init__(self) -> None:
        self.text = ""
        self.typed = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self._pending = ""
        self._conversation: object = None

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk.decode("ascii")).split("\n")
        for line in lines:
            if line.strip():
                self._event(json.loads(line))

    def close(self) -> None:
        assert not self._pending

    def _event(self, event: dict[str, str]) -> None:
        assert not self.terminals, "a line after the terminal one"
        kind = event["type"]
        assert (kind == "start") == (not self.records)
        self.records.append(event)
        if kind == "start":
            assert list(event) == ["type", "conversationId"]
            self._conversation = event["conversationId"]
        elif kind == "token":
            assert list(event) == ["type", "token"]
            self.typed += event["token"]
            self.text += event["token"]
        elif kind == "done":
            assert list(event) == ["type", "message", "conversationId"]
            assert event["conversationId"] == self._conversation
            self.text = event["message"]
            self.terminals.append("ok")
        else:
            assert event == {"type": "error", "error": "Internal server error"}
            self.terminals.append("error")


class OneShotReader:
    def __init__(self) -> None:
        self.text = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self._body = b""

    def feed(self, chunk: bytes) -> None:
        self._body += chunk

    def close(self) -> None:
        answer = json.loads(self._body.decode("ascii"))
        self.records.append(answer)
        if list(answer) == ["error"]:
            self.terminals.append("error")
            return
        assert list(answer) == ["conversationId", "message"]
        self.text = answer["message"]
        self.terminals.append("ok")


READERS: Final[dict[str, Callable[[], Reader]]] = {"ndjson": LineReader, "one-shot": OneShotReader}
