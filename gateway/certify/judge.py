"""Judges what one client was given, by the rules that hold for every dialect.

One terminal record, which is a refusal where nothing was generated yet; success for whole streams
only; every part settled before an error; the text is what the model said and what history keeps;
no usage that the upstream did not state.
"""

import unicodedata
from dataclasses import dataclass
from typing import Final

from gateway.certify.case import REFUSAL, Outcome
from gateway.certify.truth import Facts
from gateway.certify.upstream import Tale
from gateway.certify.wires import Wire
from gateway.readers import Broken, Reader, demand

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a case before it is played.

    `text` is that of the recording when it is not cut, `good` whether it ends well then. `facts`
    are those of the bytes up to the cut, `told` what the decoder makes of them.
    """

    facts: Facts
    told: Tale
    text: str
    good: bool


def verdict(wire: Wire, expected: Expected, outcome: Outcome) -> str | None:
    """What is wrong, None if nothing is."""
    try:
        _judge(wire, expected, outcome)
    except Broken as rule:
        return str(rule)
    return None


def _judge(wire: Wire, expected: Expected, outcome: Outcome) -> None:
    if outcome.fault:
        raise Broken(outcome.fault)
    demand(outcome.counted != "internal", "the gateway failed by a fault of its own")
    if outcome.status != 200:
        _judge_refusal(wire, expected, outcome)
        return
    reader = _read(wire, outcome)
    demand(len(reader.terminals) == 1, f"{len(reader.terminals)} terminal records")
    if reader.terminals == ["ok"]:
        _judge_success(wire, expected, outcome, reader)
    else:
        _judge_failure(wire, expected, outcome, reader)


def _read(wire: Wire, outcome: Outcome) -> Reader:
    reader = wire.reader()
    for part in outcome.parts:
        reader.feed(part)
    reader.close()
    return reader


def _judge_refusal(wire: Wire, expected: Expected, outcome: Outcome) -> None:
    streams = wire.framing != "one-shot"
    lowest = 500 if expected.good else 400  # a cut is never the client's fault
    demand(lowest <= outcome.status <= 599, f"a refusal with status {outcome.status}")
    demand(not (streams and expected.told.spoke), "a status though the model had begun to speak")
    body = b"".join(outcome.parts)
    demand(bool(wire.refusal(body)), "a refusal without words")
    headers = outcome.headers
    demand(headers.get("content-type", "").startswith(_JSON), "a refusal that is not JSON")
    demand(headers.get("content-length") == str(len(body)), "a refusal of another length")
    if outcome.status in (429, 503):
        demand(headers.get("retry-after", "").isdecimal(), "a 429 or 503 without Retry-After")
    demand(not outcome.kept, "history kept a reply that nobody was shown")
    _judge_fail_kind(expected, outcome)


def _judge_success(wire: Wire, expected: Expected, outcome: Outcome, reader: Reader) -> None:
    demand(expected.facts.whole, "a truncated stream ended as good")
    said = expected.told.text
    _judge_text(wire, expected, said, reader)
    demand(outcome.kept == [(said, "complete")], _of_history(outcome, "complete"))
    stated = expected.facts.usage
    if outcome.counted is not None:
        demand(outcome.counted == "ok", f"a good end counted as {outcome.counted}")
        demand(outcome.counted_usage == stated, "counted usage is not what the upstream stated")
    if wire.states_usage:
        demand(
            reader.usage == stated,
            "usage was made up" if stated is None else "usage is not what the upstream stated",
        )


def _judge_failure(wire: Wire, expected: Expected, outcome: Outcome, reader: Reader) -> None:
    demand(wire.framing != "one-shot", "a failed one-shot answer with status 200")
    demand(expected.told.spoke, "a stream was begun before the model had said anything")
    said = expected.told.text
    demand(reader.text == said, "the text is not what the model had said")
    demand(expected.text.startswith(said), "the text is no beginning of the whole reply")
    kept = [(said, "partial")] if said or expected.told.called else []
    demand(outcome.kept == kept, _of_history(outcome, "partial"))
    demand(reader.usage is None, "a failed turn has usage")
    left_open = getattr(reader, "open_calls", None) if wire.options.tool_results else None
    demand(not left_open, "a tool call was left open before an error")
    _judge_fail_kind(expected, outcome)


def _judge_fail_kind(expected: Expected, outcome: Outcome) -> None:
    demand(not (expected.good and expected.facts.whole), "a whole stream ended as failed")
    counted = outcome.counted
    if counted is not None:
        failed = counted not in ("ok", "client_disconnect")
        demand(failed, f"a failure counted as {counted}")
        demand(not expected.good or counted == "truncated", f"a cut counted as {counted}")


def _judge_text(wire: Wire, expected: Expected, said: str, reader: Reader) -> None:
    demand(expected.text.startswith(said), "the text is no beginning of the whole reply")
    if wire.trims:
        demand(getattr(reader, "typed", said) == said, "the tokens are not what the model said")
        demand(reader.text == (_trimmed(said) or REFUSAL), "the last record has another text")
    else:
        demand(reader.text == said, "the text is not what the model said")


def _of_history(outcome: Outcome, status: str) -> str:
    if not outcome.kept:
        return "history kept nothing"
    if len(outcome.kept) > 1:
        return "history kept more than one reply"
    return f"history kept another text, or not as {status}"


def _trimmed(text: str) -> str:
    """The text as ECMAScript's String.prototype.trim leaves it: WhiteSpace and LineTerminator."""
    begin, end = 0, len(text)
    while begin < end and _is_space(text[begin]):
        begin += 1
    while end > begin and _is_space(text[end - 1]):
        end -= 1
    return text[begin:end]


def _is_space(char: str) -> bool:
    return char in "\t\v\f\ufeff\n\r\u2028\u2029" or unicodedata.category(char) == "Zs"
