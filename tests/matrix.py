"""The README's table of what each dialect carries and drops: `python -m tests.matrix [--check]`.

Nothing in it is written by hand. A fact of a turn is given two values, both turns are encoded, a
strict reader reads them, and the members in which they differ carry the fact. A fact that makes
no difference is dropped. The table stands between two marks, which have a line of their own.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway.errors import ErrorKind
from gateway.events import (
    CitationFound,
    FinishReason,
    GuardAction,
    GuardFired,
    ModerationReported,
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolOutcome,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.messages import TurnContext, Usage
from tests.golden import WIRES, Wire, context, error_of

README: Final = Path(__file__).parent.parent / "README.md"
BEGIN: Final = "<!-- matrix -->"
END: Final = "<!-- end of matrix -->"
DROPPED: Final = "–"
NOTE: Final = (
    f"{DROPPED} is dropped. ¹ only where the tenant turned it on: "
    "`tool_items` on hyperleap, `tool_results` on helper."
)

# Values that a tool or a model makes: what is inside of them is no member of the wire.
OPAQUE: Final = (".arguments", ".args", ".input")

Leaves = set[tuple[str, object]]


@dataclass(frozen=True)
class Facts:
    """Everything that a turn can be about, with a value for each."""

    turn_id: str = "turn-a"
    run_id: str = "run-a"
    message_id: str = "message-a"
    conversation_id: str = "conversation-a"
    trace_id: str = "trace-a"
    model: str = "model-a"
    text: str = "text-a"
    reasoning: str = "reasoning-a"
    call_id: str = "call-a"
    tool: str = "tool-a"
    partial: str = '{"a'
    arguments: str = '{"a":1}'
    result: str = '"result-a"'
    tool_latency_ms: int = 101
    outcome: ToolOutcome = "ok"
    guard: str = "guard-a"
    action: GuardAction = "block"
    rule: str = "rule-a"
    replacement: str = "replacement-a"
    link: str = "https://a.example"
    source: str = "source-a"
    cited: str = "cited-a"
    category: str = "category-a"
    filtered: bool = True
    severity: str = "severity-a"
    round_reason: FinishReason = "stop"
    round_usage: Usage | None = None
    reason: FinishReason = "stop"
    usage: Usage | None = None
    latency_ms: int = 201
    kind: ErrorKind = "upstream_error"


Turn = Callable[[Facts], list[TurnEvent]]


@dataclass(frozen=True)
class Row:
    """A fact: two values of it, and the turn in which it shows."""

    label: str
    first: Facts
    second: Facts
    turn: Turn


def _ended(
    facts: Facts, *events: TurnEvent, citations: Sequence[CitationFound] = ()
) -> list[TurnEvent]:
    return [
        TurnStarted(),
        *events,
        RoundFinished(facts.round_reason, facts.round_usage),
        TurnFinished(
            "".join(e.text for e in events if isinstance(e, TextDelta)),
            facts.reason,
            facts.usage,
            facts.latency_ms,
            tuple(citations),
        ),
    ]


def _said(facts: Facts) -> list[TurnEvent]:
    return _ended(facts, ReasoningDelta(facts.reasoning), TextDelta(facts.text))


def _called(facts: Facts) -> list[TurnEvent]:
    call_id, tool, arguments = facts.call_id, facts.tool, facts.arguments
    returned = ToolReturned(
        call_id, tool, arguments, facts.result, facts.tool_latency_ms, facts.outcome
    )
    return _ended(
        facts,
        ToolCallStarted(call_id, tool),
        ToolCallDelta(call_id, facts.partial),
        ToolCallDelta(call_id, arguments.removeprefix(facts.partial)),
        ToolCallEnded(call_id, tool, arguments),
        returned,
    )


def _guarded(facts: Facts) -> list[TurnEvent]:
    replacement = facts.replacement if facts.action == "redirect" else None
    fired = GuardFired(facts.guard, facts.action, facts.rule, replacement)
    return _ended(facts, TextDelta("text"), fired)


def _judged(facts: Facts) -> list[TurnEvent]:
    return _ended(facts, ModerationReported(facts.category, facts.filtered, facts.severity))


def _cited(facts: Facts) -> list[TurnEvent]:
    found = CitationFound("1", facts.link, facts.source, facts.cited)
    return _ended(facts, TextDelta("text"), found, citations=[found])


def _failed(facts: Facts) -> list[TurnEvent]:
    return [TurnStarted(), TextDelta("text"), TurnFailed(facts.kind, facts.latency_ms)]


A: Final = Facts()
REDIRECT: Final = replace(A, action="redirect")
ESCALATE: Final = replace(A, action="escalate")

ROWS: Final = (
    Row("`TurnStarted` turn id", A, replace(A, turn_id="b"), _said),
    Row("… run id", A, replace(A, run_id="b"), _said),
    Row("… message id", A, replace(A, message_id="b"), _said),
    Row("… conversation id", A, replace(A, conversation_id="b"), _said),
    Row("… trace id", A, replace(A, trace_id="b"), _said),
    Row("… model", A, replace(A, model="b"), _said),
    Row("`TextDelta` text", A, replace(A, text="b"), _said),
    Row("`ReasoningDelta` text", A, replace(A, reasoning="b"), _said),
    Row("`ToolCallStarted` call id", A, replace(A, call_id="b"), _called),
    Row("… name", A, replace(A, tool="b"), _called),
    Row("`ToolCallDelta` arguments", A, replace(A, partial='{"'), _called),
    Row("`ToolCallEnded` arguments", A, replace(A, arguments='{"a":2}'), _called),
    Row("`ToolReturned` result", A, replace(A, result='"b"'), _called),
    Row("… latency", A, replace(A, tool_latency_ms=102), _called),
    Row("… outcome", A, replace(A, outcome="timeout"), _called),
    Row("`GuardFired` kind", A, replace(A, guard="b"), _guarded),
    Row("… action", A, ESCALATE, _guarded),
    Row("… rule", ESCALATE, replace(ESCALATE, rule="b"), _guarded),
    Row("… replacement", REDIRECT, replace(REDIRECT, replacement="b"), _guarded),
    Row("`CitationFound` link", A, replace(A, link="https://b.example"), _cited),
    Row("… source's name", A, replace(A, source="b"), _cited),
    Row("… cited text", A, replace(A, cited="b"), _cited),
    Row("`ModerationReported` category", A, replace(A, category="b"), _judged),
    Row("… filtered", A, replace(A, filtered=False), _judged),
    Row("… severity", A, replace(A, severity="b"), _judged),
    Row("`RoundFinished` reason", A, replace(A, round_reason="length"), _said),
    Row("… usage", A, replace(A, round_usage=Usage(301, 302)), _said),
    Row("`TurnFinished` reason", A, replace(A, reason="length"), _said),
    Row("… usage", A, replace(A, usage=Usage(301, 302)), _said),
    Row("… latency", A, replace(A, latency_ms=202), _said),
    Row("`TurnFailed` kind", A, replace(A, kind="deadline"), _failed),
    Row("… latency", A, replace(A, latency_ms=202), _failed),
)

COLUMNS: Final = (
    ("hyponema", "hyponema", "sse"),
    ("hyperleap", "hyperleap", "array"),
    ("hyperleap, at once", "hyperleap", "one-shot"),
    ("widget", "widget", "ndjson"),
    ("widget, at once", "widget", "one-shot"),
    ("helper, data stream", "helper", "data-stream"),
    ("helper, UI messages", "helper", "ui-message-stream"),
)


def table() -> str:
    """The table, in Markdown."""
    head = ["of a turn", *(title for title, _, _ in COLUMNS)]
    lines = [head, ["---"] * len(head)]
    lines += [[row.label, *(_cell(row, *column[1:]) for column in COLUMNS)] for row in ROWS]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Row, dialect: str, framing: str) -> str:
    plain, *more = sorted(
        (w for w in WIRES if (w.dialect.name, w.framing) == (dialect, framing)),
        key=lambda wire: wire.options.tool_results,
    )
    carriers = _carriers(row, plain)
    if carriers:
        return _named(carriers)
    for wire in more:
        if carriers := _carriers(row, wire):
            return f"{_named(carriers)} ¹"
    return DROPPED


def _named(carriers: Sequence[str]) -> str:
    return ", ".join(f"`{carrier}`" for carrier in carriers)


def _carriers(row: Row, wire: Wire) -> list[str]:
    """What tells the two values apart: members, or whole records and objects of one of them."""
    first, second = (_leaves(row, facts, wire) for facts in (row.first, row.second))
    differing = {path for path, _ in first ^ second}
    alike = {_kind(path) for path, _ in first & second}
    # A parent that is null in one turn and an object in the other says what its members say.
    members = {p for p in differing if not any(other.startswith(f"{p}.") for other in differing)}
    named = {path if _kind(path) in alike else _kind(path).removesuffix("[]") for path in members}
    return _grouped(sorted(named))


def _kind(path: str) -> str:
    return path.partition(".")[0]


def _grouped(paths: Sequence[str]) -> list[str]:
    """The paths, with those that differ in a word of the record's kind made one: `tool_*.name`."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        kind, dot, member = path.partition(".")
        groups.setdefault(f"{kind[: _stem(kind)]}*{dot}{member}", []).append(path)
    return [
        path for star, group in groups.items() for path in (group if len(group) < 2 else [star])
    ]


def _stem(kind: str) -> int:
    """Where the part of a record's kind that others may share ends: `tool_`, `tool-`."""
    ends = [place + 1 for place in (kind.find("_"), kind.find("-")) if place >= 0]
    return min(ends, default=len(kind))


def _leaves(row: Row, facts: Facts, wire: Wire) -> Leaves:
    """Every member of the turn's records, with its value."""
    events = row.turn(facts)
    encoder = wire.dialect.encoder(_context(wire, facts))
    last = events[-1]
    if encoder.one_shot and isinstance(last, TurnFailed):
        reply = wire.dialect.encode_error(error_of(last.kind))
        return {("status", reply.status), ("body", reply.body)}
    reader = wire.reader()
    for event in events:
        for record in encoder.encode(event):
            reader.feed(record)
    reader.close()
    return {leaf for record in reader.records for leaf in _walk(record)}


def _context(wire: Wire, facts: Facts) -> TurnContext:
    return replace(
        context(wire.framing, wire.options),
        turn_id=facts.turn_id,
        run_id=facts.run_id,
        message_id=facts.message_id,
        conversation_id=facts.conversation_id,
        trace_id=facts.trace_id,
        model=facts.model,
    )


def _walk(record: object) -> Iterator[tuple[str, object]]:
    """A record's members by their paths, which begin with the word that names the record's kind."""
    if isinstance(record, tuple):
        name, value = record
        yield from _members(str(name), value)
    elif isinstance(record, dict) and isinstance(record.get("type"), str):
        yield from _members(record["type"], {k: v for k, v in record.items() if k != "type"})
    else:
        yield from _members("", record)


def _members(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value and not path.endswith(OPAQUE):
        for name, inner in value.items():
            yield from _members(f"{path}.{name}".lstrip("."), inner)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _members(f"{path}[]", inner)
    else:
        yield path, repr(value)


def placed(readme: str) -> str:
    """The README with the table in its place. Raises `ValueError` without the marks."""
    before, begin, rest = readme.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no line {BEGIN!r} with a line {END!r} after it")
    return f"{before}{begin}\n{table()}\n\n{NOTE}\n\n{end}{after}"


def main(arguments: Sequence[str]) -> int:
    """Writes the table, or with `--check` says whether it is up to date."""
    readme = README.read_text(encoding="utf-8")
    try:
        fresh = placed(readme)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if "--check" in arguments:
        if fresh != readme:
            print("README.md: the matrix is stale; run `make golden`", file=sys.stderr)
        return int(fresh != readme)
    README.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
