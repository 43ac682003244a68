"""A client of Hyponema's "Chat API" page: shows `token` texts, knows the seven events.

A redirect's replacement takes the place of what was shown.
"""

from collections.abc import Callable
from typing import Final

from gateway.readers import Members, Tokens, ascii_text, demand, members, parsed, tokens, word
from gateway.readers import Reader as AnyReader
from gateway.readers.eventstream import EventStream

_MEMBERS: Final = {
    "turn_start": ["turn_id", "model"],
    "token": ["text"],
    "tool_call": ["call_id", "name", "arguments_partial"],
    "tool_result": ["call_id", "name", "arguments", "result", "latency_ms"],
    "guard": ["kind", "action", "detail", "replacement"],
    "turn_end": ["turn_id", "latency_ms", "prompt_tokens", "completion_tokens"],
    "error": ["detail", "error_kind"],
}


class Reader:
    """`arguments` has every snapshot of each call's arguments; a record is (event, payload)."""

    def __init__(self) -> None:
        self.text = ""
        self.terminals: list[str] = []
        self.records: list[object] = []
        self.usage: Tokens | None = None
        self.arguments: dict[str, list[str]] = {}
        self._turn_id = ""
        self._stream = EventStream()

    def feed(self, chunk: bytes) -> None:
        """Reads some more of the body."""
        for name, data in self._stream.feed(chunk):
            demand(data.isascii(), "a byte is not ASCII")
            self._event(name, members(parsed(data)))

    def close(self) -> None:
        """The body is over."""
        self._stream.close()

    def _event(self, name: str, payload: Members) -> None:
        demand(not self.terminals, "an event after the terminal one")
        demand(name in _MEMBERS, "an event that the page does not have")
        demand(list(payload) == _MEMBERS[name], "an event with other members than the page's")
        demand((name == "turn_start") == (not self.records), "turn_start is not the first event")
        self._take(name, payload)
        self.records.append((name, payload))

    def _take(self, name: str, payload: Members) -> None:
        if name == "token":
            self.text += word(payload, "text")
        elif name == "turn_start":
            self._turn_id = word(payload, "turn_id")
            demand(bool(self._turn_id and word(payload, "model")), "an empty id or model")
        elif name == "tool_call":
            self._tool_call(payload)
        elif name == "tool_result":
            demand(word(payload, "call_id") in self.arguments, "a result without its call")
            demand(type(payload["latency_ms"]) is int, "latency_ms is no whole number")
        elif name == "guard":
            self._guard(payload)
        elif name == "error":
            demand(bool(word(payload, "detail") and word(payload, "error_kind")), "an empty error")
            self.terminals.append("error")
        else:
            self._turn_end(payload)

    def _tool_call(self, payload: Members) -> None:
        seen = self.arguments.setdefault(word(payload, "call_id"), [""])
        partial = word(payload, "arguments_partial")
        demand(partial.startswith(seen[-1]), "arguments_partial does not begin with the last one")
        seen.append(partial)

    def _guard(self, payload: Members) -> None:
        redirected = payload["action"] == "redirect"
        demand(
            redirected == (payload["replacement"] is not None),
            "replacement is set without a redirect, or not set for one",
        )
        if redirected:
            self.text = word(payload, "replacement")

    def _turn_end(self, payload: Members) -> None:
        demand(payload["turn_id"] == self._turn_id, "turn_end is of another turn")
        demand(type(payload["latency_ms"]) is int, "latency_ms is no whole number")
        counts = payload["prompt_tokens"], payload["completion_tokens"]
        if counts != (None, None):
            self.usage = tokens(payload, "prompt_tokens", "completion_tokens")
        self.terminals.append("ok")


def refusal(body: bytes) -> str:
    """The text of a refused request: the two members of the `error` event."""
    answer = members(parsed(ascii_text(body)))
    demand(list(answer) == _MEMBERS["error"], "an error with other members than the page's")
    demand(bool(word(answer, "error_kind")), "an empty error_kind")
    return word(answer, "detail")


READERS: Final[dict[str, Callable[[], AnyReader]]] = {"sse": Reader}
