"""A client of Hyponema's "Chat API" page: shows `token` texts, knows the seven events.

A redirect's replacement takes the place of what was shown.
"""

import json

from tests.readers.eventstream import EventStream

_MEMBERS = {
    "turn_start": ["turn_id", "model"],
    "token": ["text"],
    "tool_call": ["call_id", "name", "arguments_partial"],
    "tool_result": ["call_id", "name", "arguments", "result", "latency_ms"],
    "guard": ["kind", "action", "detail", "replacement"],
    "turn_end": ["turn_id", "latency_ms", "prompt_tokens", "completion_tokens"],
    "error": ["detail", "error_kind"],
}


class Reader:
    def __init__(self) -> None:
        self.text = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.arguments: dict[str, list[str]] = {}
        self._stream = EventStream()

    def feed(self, chunk: bytes) -> None:
        for name, data in self._stream.feed(chunk):
            self._event(name, json.loads(data))

    def close(self) -> None:
        self._stream.close()

    def _event(self, name: str, payload: dict[str, object]) -> None:
        assert not self.terminals, f"{name} after the terminal event"
        assert list(payload) == _MEMBERS[name]
        assert (name == "turn_start") == (not self.records)
        self.records.append((name, payload))
        if name == "token":
            self.text += str(payload["text"])
        elif name == "tool_call":
            seen = self.arguments.setdefault(str(payload["call_id"]), [""])
            partial = str(payload["arguments_partial"])
            assert partial.startswith(seen[-1])
            seen.append(partial)
        elif name == "guard":
            assert (payload["replacement"] is None) == (payload["action"] != "redirect")
            if payload["action"] == "redirect":
                self.text = str(payload["replacement"])
        elif name in ("turn_end", "error"):
            self.terminals.append("ok" if name == "turn_end" else "error")
