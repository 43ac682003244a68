from collections.abc import Iterable, Sequence
from typing import Final, get_args
from unicodedata import category

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from gateway.events import (
    RoundFinished,
    TextDelta,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.framing.asciijson import RECORD_BYTES
from gateway.grammar import Grammar, TurnState
from gateway.readers import Reader
from tests.golden import FOLDER, REFUSAL, WIRES, Wire, cases, dump, existing, load
from tests.walks import TEXTS, turns

CASES: Final = cases()
EACH_WIRE: Final = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
EACH_CASE: Final = pytest.mark.parametrize("case", CASES)
NEEDED: Final = {
    *("text", "unicode", "empty", "long", "reasoning", "citations", "moderation", "no_usage"),
    *("tool", "two_tools", "tool_failed", "tool_passed_on", "length", "deadline"),
    *("guard_block", "guard_redirect", "guard_escalate"),
    *("error_before_text", "error_mid_text", "error_mid_tool"),
}
REPLACEMENT: Final = "Let us talk about your order."

# What a person sees in the end, where it is not simply all text deltas of the turn.
SHOWN: Final = {
    ("hyponema", "guard_redirect"): REPLACEMENT,
    ("hyperleap", "guard_block"): f"That is\n\n{REFUSAL}",
    ("hyperleap", "guard_block_input"): REFUSAL,
    ("hyperleap", "guard_redirect"): REPLACEMENT,
    ("widget", "white_space"): "kept\xa0inside\u3000\x1f",
    ("widget", "empty"): REFUSAL,
    ("widget", "guard_block"): REFUSAL,
    ("widget", "guard_block_input"): REFUSAL,
    ("widget", "guard_redirect"): REPLACEMENT,
    ("helper", "guard_block"): f"That is{REFUSAL}",
    ("helper", "guard_block_input"): REFUSAL,
    ("helper", "guard_redirect"): REPLACEMENT,
}
SHOWN_AT_ONCE: Final = {("hyperleap", "guard_block"): REFUSAL}

# In how many places a body is cut in two, evenly spread, and up to which size it is read byte by
# byte, which takes a reader of an array quadratic time.
CUTS: Final = 100
BYTE_BY_BYTE: Final = 5000

# ECMAScript's WhiteSpace and LineTerminator, by their definitions.
TRIMMED: Final = "".join(
    char
    for char in map(chr, range(0x10000))
    if category(char) == "Zs" or char in "\t\v\f\ufeff\n\r\u2028\u2029"
)

bounded = settings(max_examples=100, derandomize=True)
found_at_all = settings(bounded, phases=[Phase.generate])


def read(wire: Wire, chunks: Iterable[bytes]) -> Reader:
    reader = wire.reader()
    for chunk in chunks:
        reader.feed(chunk)
    reader.close()
    return reader


def seen(reader: Reader) -> tuple[str, list[str], list[object]]:
    return reader.text, reader.terminals, reader.records


def shown(wire: Wire, case: str, events: Sequence[TurnEvent]) -> str:
    one_shot = wire.encoder().one_shot
    if one_shot and isinstance(events[-1], TurnFailed):
        return ""
    key = (wire.dialect.name, case)
    if one_shot and key in SHOWN_AT_ONCE:
        return SHOWN_AT_ONCE[key]
    return SHOWN.get(key, "".join(e.text for e in events if isinstance(e, TextDelta)))


def outcome(events: Sequence[TurnEvent]) -> str:
    return "ok" if isinstance(events[-1], TurnFinished) else "error"


def assert_fit(records: Iterable[bytes]) -> None:
    for record in records:
        assert len(record) < RECORD_BYTES or record.startswith(b'{"type":"done"')


@pytest.mark.parametrize("kind", get_args(TurnEvent), ids=lambda kind: kind.__name__)
def test_walks_come_by_every_event(kind: type) -> None:
    find(
        turns(), lambda events: any(type(event) is kind for event in events), settings=found_at_all
    )


def test_the_cases_that_every_wire_must_have_are_there() -> None:
    assert set(CASES) >= NEEDED


def test_every_wire_has_a_transcript_of_every_case_and_nothing_else_is_there() -> None:
    assert existing() == {wire.transcript(case) for wire in WIRES for case in CASES}


@EACH_CASE
def test_a_case_is_a_legal_turn_from_start_to_end(case: str) -> None:
    grammar = Grammar()
    for event in load(case):
        grammar.advance(event)
    assert grammar.state in (TurnState.DONE, TurnState.FAILED)


@EACH_CASE
def test_a_case_says_no_more_than_its_events(case: str) -> None:
    text = (FOLDER / "cases" / f"{case}.jsonl").read_bytes().decode()
    assert dump(load(case)) == text


@EACH_WIRE
@EACH_CASE
def test_encodes_the_golden_bytes(wire: Wire, case: str) -> None:
    assert b"".join(wire.records(load(case))) == wire.transcript(case).read_bytes()


@EACH_WIRE
@EACH_CASE
def test_a_reader_recovers_the_text_and_one_terminal_record(wire: Wire, case: str) -> None:
    events = load(case)
    reader = read(wire, [wire.transcript(case).read_bytes()])
    assert reader.text == shown(wire, case, events)
    assert reader.terminals == [outcome(events)]


@EACH_WIRE
@EACH_CASE
def test_any_cut_of_the_body_reads_alike(wire: Wire, case: str) -> None:
    body = wire.transcript(case).read_bytes()
    whole = seen(read(wire, [body]))
    if len(body) <= BYTE_BY_BYTE:
        assert seen(read(wire, (body[at : at + 1] for at in range(len(body))))) == whole
    for at in range(0, len(body), len(body) // CUTS + 1):
        assert seen(read(wire, [body[:at], body[at:]])) == whole, at


@EACH_WIRE
@EACH_CASE
def test_records_that_stand_apart_fit_one_data_frame(wire: Wire, case: str) -> None:
    if wire.encoder().apart:
        assert_fit(wire.records(load(case)))


@EACH_WIRE
@bounded
@given(texts=st.lists(TEXTS, max_size=5))
def test_any_text_arrives_as_it_was_said(wire: Wire, texts: list[str]) -> None:
    text = "".join(texts)
    events: list[TurnEvent] = [
        TurnStarted(),
        *map(TextDelta, texts),
        RoundFinished("stop", None),
        TurnFinished(text, "stop", None, 1, ()),
    ]
    reader = read(wire, wire.records(events))
    if wire.dialect.name == "widget":
        assert getattr(reader, "typed", text) == text
        text = text.strip(TRIMMED) or REFUSAL
    assert reader.text == text


@bounded
@given(events=turns(), data=st.data())
def test_any_legal_turn_has_one_terminal_record_whatever_the_silences(
    events: list[TurnEvent], data: st.DataObject
) -> None:
    silences = data.draw(st.lists(st.integers(0, 2), min_size=len(events), max_size=len(events)))
    for wire in WIRES:
        encoder = wire.encoder()
        records: list[bytes] = []
        for event, silence in zip(events, silences, strict=True):
            for _ in range(silence):
                records += encoder.keep_alive()
            records += encoder.encode(event)
        if encoder.one_shot and outcome(events) == "error":
            assert records == [], wire.name
            continue
        assert read(wire, records).terminals == [outcome(events)], wire.name
        if encoder.apart:
            assert_fit(records)
