"""What the bytes of a recording say by themselves: whole or not, and which tokens were billed.

Read with the `json` module and an event reader that the upstream codecs do not use, so that a
codec cannot vouch for itself. The rules are the documented ones. A stream of chat completions is
whole once a chunk had a `finish_reason`, `[DONE]` or not; one of messages once `message_stop` was
there; a document once it is a whole JSON text. The last event needs no blank line.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeGuard

from gateway.certify.recordings import Recording
from gateway.readers import Tokens
from gateway.readers.eventstream import EventStream

_BOM: Final = b"\xef\xbb\xbf"
# The last three say that the server gave up.
_NO_END: Final = (None, "", "error", "abort", "insufficient_system_resource")
_INPUTS: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recording has said up to some byte.

    `whole`: nothing more has to come; `ended`: an end mark says that nothing more will come.
    """

    whole: bool = False
    ended: bool = False
    inputs: tuple[tuple[str, int], ...] = ()
    output: int | None = None

    @property
    def usage(self) -> Tokens | None:
        """Tokens in and out, None if either was never stated."""
        counts = dict(self.inputs)
        if self.output is None or "input_tokens" not in counts:
            return None
        return sum(counts.values()), self.output


class Truth:
    """The facts of one recording at every cut."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._ends = [0]
        self._facts = [Facts()]
        if not recording.is_document:
            self._read_events()

    def at(self, cut: int, *, closed: bool = True) -> Facts:
        """The facts if the stream ends after `cut` bytes; else those of its whole events so far."""
        recording = self._recording
        if recording.is_document:
            payload = _loaded(recording.data[:cut].decode("utf-8", "replace"))
            return Facts() if payload is None else _document(recording.protocol, payload)
        place = bisect_right(self._ends, cut) - 1
        facts = self._facts[place]
        begun = recording.data[self._ends[place] : cut]
        if facts.ended or not begun or not closed:
            return facts
        for _, text in EventStream().feed(_without_bom(begun, self._ends[place]) + b"\n\n"):
            facts = _after(recording.protocol, facts, text)
        # An end mark without its blank line is no event yet: more may come.
        return replace(facts, ended=False)

    def _read_events(self) -> None:
        stream, data = EventStream(), self._recording.data
        begin = len(data) - len(_without_bom(data, 0))
        for place in range(begin, len(data)):
            for _, text in stream.feed(data[place : place + 1]):
                self._ends.append(place + 1)
                self._facts.append(_after(self._recording.protocol, self._facts[-1], text))


def _after(protocol: str, facts: Facts, text: str) -> Facts:
    """The facts after one more event."""
    if facts.ended:
        return facts
    if protocol == "openai" and text.strip() == "[DONE]":
        return replace(facts, ended=True)
    payload = _loaded(text)
    if payload is None:
        return facts
    return _chunk(facts, payload) if protocol == "openai" else _event(facts, payload)


def _chunk(facts: Facts, payload: Mapping[str, object]) -> Facts:
    choices = payload.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index"):
            if choice.get("finish_reason") not in _NO_END:
                facts = replace(facts, whole=True)
            facts = _billed(facts, choice.get("usage"), "prompt_tokens", "completion_tokens")
    return _billed(facts, payload.get("usage"), "prompt_tokens", "completion_tokens")


def _billed(facts: Facts, usage: object, first: str, second: str) -> Facts:
    counts = usage if isinstance(usage, dict) else {}
    taken, given = counts.get(first), counts.get(second)
    if _is_count(taken) and _is_count(given):
        return replace(facts, inputs=(("input_tokens", taken),), output=given)
    return facts


def _event(facts: Facts, payload: Mapping[str, object]) -> Facts:
    kind = payload.get("type")
    if kind == "message_stop":
        return replace(facts, whole=True, ended=True)
    if kind == "message_start":
        message = payload.get("message")
        return _inputs(facts, message.get("usage") if isinstance(message, dict) else None)
    if kind == "message_delta":
        return _output(_inputs(facts, payload.get("usage")), payload.get("usage"))
    return facts


def _inputs(facts: Facts, usage: object) -> Facts:
    counts = usage if isinstance(usage, dict) else {}
    stated = {name: counts[name] for name in _INPUTS if _is_count(counts.get(name))}
    return replace(facts, inputs=tuple((dict(facts.inputs) | stated).items()))


def _output(facts: Facts, usage: object) -> Facts:
    count = usage.get("output_tokens") if isinstance(usage, dict) else None
    return replace(facts, output=count) if _is_count(count) else facts


def _document(protocol: str, payload: Mapping[str, object]) -> Facts:
    facts = Facts(whole=True, ended=True)
    if protocol == "openai":
        return replace(_chunk(facts, payload), whole=True)
    return _output(_inputs(facts, payload.get("usage")), payload.get("usage"))


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _loaded(text: str) -> dict[str, object] | None:
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return payload if isinstance(payload, dict) else None


def _without_bom(data: bytes, begin: int) -> bytes:
    return data.removeprefix(_BOM) if begin == 0 else data
