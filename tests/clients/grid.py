"""The table: a row per client, a column per case, and the count at the end.

A cell is `ok` where the client showed all of the case, a letter where the case's subject has no
place on its wire or in the client (`REASONS` says which) and all the rest was right, else FAIL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.ci.table import Table
from tests.clients.cases import CASES, Case, Fact
from tests.clients.wires import WIRES, Seen, expected

REASONS: Final = {
    "a": "the wire has no word for it",
    "b": "the printed loop looks at no status and passes over the refusal in silence",
    "c": "the printed loop parses each read alone, and so long a line comes in several",
}
FAIL: Final = "FAIL"
OK: Final = "ok"


@dataclass(frozen=True)
class Client:
    """A row. `blind` are facts that the client does not hand out, and that no case is about.

    `instead` is what it shows for a fact of a case that it cannot show as it is. `unread` are
    cases that it cannot take in by a fault of its own: the reason, and what it is seen to show.
    """

    name: str
    http: str
    wire: str
    blind: frozenset[Fact] = frozenset()
    instead: Mapping[tuple[str, Fact], object] = field(default_factory=dict)
    unread: Mapping[str, tuple[str, Seen]] = field(default_factory=dict)

    @property
    def row(self) -> str:
        """The row's name."""
        return f"{self.name}, {self.wire}, {self.http}"


@dataclass(frozen=True)
class Cell:
    """One client's reading of one case; `wrong` has (fact, expected, seen)."""

    mark: str
    wrong: Sequence[tuple[str, object, object]] = ()


def judge(client: Client, case: Case, seen: Seen | None) -> Cell:
    """Whether the client came away with what was sent."""
    wanted = expected(case, WIRES[client.wire])
    wanted |= {fact: value for (name, fact), value in client.instead.items() if name == case.name}
    for fact in client.blind:
        wanted.pop(fact, None)
    letter, shown = client.unread.get(case.name, ("", wanted))
    wanted = shown
    if seen is None or "crashed" in seen:
        return Cell(FAIL, [("all", wanted, "nothing" if seen is None else seen["crashed"])])
    wrong = [
        (fact, value, seen.get(fact, "nothing"))
        for fact, value in wanted.items()
        if fact not in seen or seen[fact] != value
    ]
    if wrong:
        return Cell(FAIL, wrong)
    if letter:
        return Cell(letter)
    return Cell(OK if case.subject in wanted else "a")


class Grid:
    """All rows so far; `table` counts."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows: list[tuple[Client, list[Cell]]] = []

    def add(self, client: Client, seen: Mapping[str, Seen]) -> None:
        """Judges a client's whole row; what was wrong is printed at once."""
        cells = [judge(client, case, seen.get(case.name)) for case in CASES]
        self.rows.append((client, cells))
        for case, cell in zip(CASES, cells, strict=True):
            for fact, wanted, shown in cell.wrong:
                print(f"FAIL {client.row}: {case.name}: {fact}")
                print(
                    f"     expected: {_short(wanted)}\n     seen:     {_short(shown)}", flush=True
                )
            self.table.passed += cell.mark != FAIL
            self.table.failed += cell.mark == FAIL

    def print(self) -> None:
        """The table and its legend."""
        print()
        for line in _aligned(wide(self.rows)):
            print(line)
        print()
        for letter, reason in REASONS.items():
            print(f"{letter}: {reason}")


def wide(rows: Sequence[tuple[Client, Sequence[Cell]]]) -> list[list[str]]:
    """Heading and rows as texts; rows that differ in the version of HTTP only are one."""
    merged: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for client, cells in rows:
        key = (client.name, client.wire, tuple(cell.mark for cell in cells))
        merged.setdefault(key, []).append(client.http)
    lines = [["client", "reads", "over HTTP", *(case.name for case in CASES)]]
    lines += [
        [name, wire, ", ".join(versions), *marks]
        for (name, wire, marks), versions in merged.items()
    ]
    return lines


def compact(rows: Sequence[tuple[Client, Sequence[Cell]]]) -> list[str]:
    """The same as a Markdown table: clients with the same cells are one row, and so are columns."""
    names, *lines = (line[3:] for line in wide(rows))
    columns: dict[tuple[str, ...], list[str]] = {}
    for number, name in enumerate(names):
        columns.setdefault(tuple(line[number] for line in lines), []).append(name)
    who: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for number, (client, wire, versions, *_) in enumerate(wide(rows)[1:]):
        marks = tuple(column[number] for column in columns)
        who.setdefault((wire, marks), []).append(f"{client} ({versions})")
    table = [["reads", "client (over HTTP)", *(", ".join(same) for same in columns.values())]]
    table.append(["---"] * len(table[0]))
    table += [[wire, "; ".join(clients), *marks] for (wire, marks), clients in who.items()]
    return [f"| {' | '.join(line)} |" for line in table]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        [text.ljust(width) for text, width in zip(line, widths, strict=True)] for line in lines
    )
    return ["  ".join(line).rstrip() for line in padded]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]} … {text[-90:]} ({len(text)} characters)"
