import json
from typing import Final

import pytest

from tests.ci.table import Table
from tests.clients import raw
from tests.clients.__main__ import BEGIN, END
from tests.clients.cases import CASES, Case
from tests.clients.grid import FAIL, OK, REASONS, Client, Grid, compact, judge, wide
from tests.clients.node import SCRIPTS
from tests.clients.samples import FOLDER, filled, indented
from tests.clients.stage import SENTENCES, Job
from tests.clients.wires import WIRES, Seen, expected
from tests.e2e.process import ROOT

ALL: Final = {case.name: case for case in CASES}
CURL: Final = Client("curl", "2", "widget")
JOB: Final = Job("c", "http://gateway", "https://gateway", "KEY", "SECRET", "a@example.com", "ID")


def whole(case: Case, wire: str = "widget") -> Seen:
    return expected(case, WIRES[wire])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_shows_everything_passes(case: Case, wire: str) -> None:
    assert judge(Client("it", "2", wire), case, whole(case, wire)).mark in {OK, "a"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_fact_counts(case: Case) -> None:
    client = Client("it", "2", "helper v5")
    for fact, value in whole(case, "helper v5").items():
        for wrong in ([value, "more"], None if value is not None else "something"):
            assert judge(client, case, whole(case, "helper v5") | {fact: wrong}).mark == FAIL
        missing = {name: kept for name, kept in whole(case, "helper v5").items() if name != fact}
        assert judge(client, case, missing).mark == FAIL


def test_what_a_wire_has_no_word_for_gets_its_letter_only_if_the_rest_is_right() -> None:
    case = ALL["reasoning"]
    assert judge(CURL, case, whole(case)).mark == "a"
    assert judge(CURL, case, whole(case) | {"text": "Forty"}).mark == FAIL


def test_what_a_client_keeps_to_itself_is_not_asked_of_it() -> None:
    blind = Client("it", "2", "helper v5", frozenset({"status"}))
    seen = whole(ALL["usage"], "helper v5")
    del seen["status"]
    assert judge(blind, ALL["usage"], seen).mark == OK
    seen["reason"] = "length"
    assert judge(blind, ALL["usage"], seen).mark == FAIL


def test_a_fault_of_the_clients_own_has_to_look_as_it_is_known_to() -> None:
    case = ALL["very long"]
    naive = Client("it", "2", "widget", unread={case.name: ("c", {"error": "SyntaxError"})})
    assert judge(naive, case, {"error": "SyntaxError"}).mark == "c"
    assert judge(naive, case, {"error": "TypeError"}).mark == FAIL


def test_a_client_that_says_nothing_or_crashes_fails() -> None:
    assert judge(CURL, CASES[0], None).mark == FAIL
    assert judge(CURL, CASES[0], whole(CASES[0]) | {"crashed": "no"}).mark == FAIL


def test_the_grid_counts_every_cell_and_prints_what_was_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    grid = Grid(Table("clients"))
    seen = {case.name: whole(case) for case in CASES}
    grid.add(CURL, seen | {"plain text": whole(ALL["plain text"]) | {"text": "Plain"}})
    assert (grid.table.passed, grid.table.failed) == (len(CASES) - 1, 1)
    printed = capsys.readouterr().out
    assert "expected: 'Plain text, in three.'" in printed
    assert "seen:     'Plain'" in printed


def test_rows_that_differ_in_the_version_only_are_one() -> None:
    seen = {case.name: whole(case) for case in CASES}
    rows = [
        (client, [judge(client, case, seen[case.name]) for case in CASES])
        for client in (Client("curl", "1.1", "widget"), CURL)
    ]
    heading, row = wide(rows)
    assert row[:3] == ["curl", "widget", "1.1, 2"]
    assert len(row) == len(heading)
    assert set(row[3:]) <= {OK, *REASONS}


def test_the_readme_has_one_row_for_clients_with_the_same_cells() -> None:
    seen = {case.name: whole(case) for case in CASES}
    rows = [
        (client, [judge(client, case, seen[case.name]) for case in CASES])
        for client in (CURL, Client("httpx", "1.1", "widget"))
    ]
    heading, _, row = compact(rows)
    assert row.startswith("| widget | curl (2); httpx (1.1) |")
    assert row.endswith(" | ok | a |")
    assert "reasoning, tools, citations, usage, no usage |" in heading
    for case in CASES:
        assert case.name in heading


def section_of_the_readme() -> str:
    text = (ROOT / "README.md").read_text()
    return text[text.index(BEGIN) : text.index(END)]


def test_the_readme_knows_every_client_and_case() -> None:
    section = section_of_the_readme()
    assert FAIL not in section
    for case in CASES:
        assert case.name in section
    clients = [script.name for script in SCRIPTS] + list(raw.NAMED)
    for name in clients:
        assert f"{name} (" in section, "run `python -m tests.clients --write`"
    for letter, reason in REASONS.items():
        assert f"{letter}: {reason}" in section


def test_the_long_replies_fit_a_frame_and_the_very_long_one_does_not() -> None:
    sizes = {name: len(json.dumps(case.text)) for name, case in ALL.items() if "long" in name}
    frame = 16 * 1024
    assert all(size < frame - 200 for name, size in sizes.items() if name != "very long")
    assert min(sizes.values()) > frame * 3 / 4
    assert sizes["very long"] > 8 * frame


def test_nothing_stays_open_in_a_sample() -> None:
    for sample in FOLDER.glob("*.txt"):
        text = filled(sample.name.removesuffix(".txt"), JOB, JOB.url)
        for placeholder in ("https://", "<api-key>", "-key-here", "{conversationId}", "user-123"):
            assert placeholder not in text, sample.name


def test_the_lost_indentation_is_found_again() -> None:
    text = indented(filled("widget-loop.py", JOB, JOB.url))
    compile(text, "sample", "exec")
    lines = text.splitlines()
    loop = lines.index("for line in response.iter_lines():")
    assert lines[loop + 1 : loop + 4] == [
        "    if line:",
        "        event = json.loads(line)",
        "        if event['type'] == 'start':",
    ]
    assert sum(line.startswith("        elif ") for line in lines) == 3


def test_the_model_knows_what_the_samples_say() -> None:
    texts = [sample.read_text() for sample in FOLDER.glob("*request.sh.txt")]
    texts += [sample.read_text() for sample in FOLDER.glob("*loop*.txt")]
    assert len(texts) == 5
    for text in texts:
        assert any(sentence in text for sentence in SENTENCES)
