from typing import get_args

import pytest

from gateway.events import TurnEvent
from tests.matrix import BEGIN, COLUMNS, DROPPED, END, ROWS, main, placed, table


def cell(label: str, column: str) -> str:
    names = [title for title, _, _ in COLUMNS]
    rows = [line.strip("| ").split(" | ") for line in table().split("\n")]
    return next(row for row in rows if row[0] == label)[1 + names.index(column)]


def test_the_readme_has_the_table_as_the_encoders_make_it() -> None:
    assert main(["--check"]) == 0


def test_every_event_has_a_row() -> None:
    labels = " ".join(row.label for row in ROWS)
    assert [
        kind.__name__ for kind in get_args(TurnEvent) if f"`{kind.__name__}`" not in labels
    ] == []


def test_a_row_changes_one_fact_only() -> None:
    for row in ROWS:
        changed = [
            name for name, value in vars(row.first).items() if vars(row.second)[name] != value
        ]
        assert len(changed) == 1, row.label


@pytest.mark.parametrize(
    ("label", "column", "carrier"),
    [
        ("`TextDelta` text", "hyponema", "`token`"),
        ("`TextDelta` text", "widget", "`done.message`, `token`"),
        ("`ReasoningDelta` text", "helper, data stream", "`g`"),
        ("`ReasoningDelta` text", "hyponema", DROPPED),
        ("`ToolReturned` result", "hyperleap", "`choice.message.content` ¹"),
        ("`CitationFound` link", "widget", DROPPED),
        ("`TurnFailed` kind", "widget", DROPPED),
        ("`TurnFailed` kind", "hyponema", "`error`"),
    ],
)
def test_a_cell_names_what_carries_the_fact(label: str, column: str, carrier: str) -> None:
    assert cell(label, column) == carrier


def test_the_table_stands_between_its_marks() -> None:
    readme = placed(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert readme.startswith(f"before\n{BEGIN}\n\n| of a turn |")
    assert readme.endswith(f"\n\n{END}\nafter\n")
    assert "old" not in readme
    assert placed(readme) == readme


@pytest.mark.parametrize("readme", ["", f"{BEGIN}\n", f"{END}\n", f"{END}\n{BEGIN}\n"])
def test_a_readme_without_the_marks_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="matrix"):
        placed(readme)
