import io

from gateway.certify.report import Progress, failures, summary, table
from gateway.certify.sweep import Tally


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def tally(wire: str, cases: int, failed: int = 0, recording: str = "a") -> Tally:
    return Tally(recording, wire, "ok", cases, failed, 7, "why" if failed else "")


def test_progress_is_a_line_every_few_seconds() -> None:
    clock, out = Clock(), io.StringIO()
    progress = Progress(4000, out, clock)
    for _ in range(12):
        clock.now += 1
        progress.add([tally("x", 100, 1)])
    progress.close()
    assert out.getvalue().splitlines() == [
        "certify: 500 of 4,000 cases (12 %), 5 failed, 6,000 a minute",
        "certify: 1,000 of 4,000 cases (25 %), 10 failed, 6,000 a minute",
    ]


def test_progress_on_a_terminal_is_one_line_that_goes_away() -> None:
    clock, out = Clock(), Terminal()
    progress = Progress(10, out, clock)
    clock.now += 1
    progress.add([tally("x", 5)])
    progress.close()
    shown = out.getvalue()
    assert "\n" not in shown
    assert shown.startswith("\r\x1b[Kcertify: 5 of 10 cases (50 %)")
    assert shown.endswith("\r\x1b[K")


def test_the_table_has_a_row_for_each_wire() -> None:
    found = [tally("x", 1000), tally("x", 500, 2, "b"), tally("longer", 7)]
    assert table(found, by_recording=False).splitlines() == [
        "wire    recordings  cases     ok  verdict",
        "x                2  1,500  1,498  2 FAILED",
        "longer           1      7      7  good",
    ]


def test_the_table_of_files_has_a_row_for_each_file_and_wire() -> None:
    assert table([tally("x", 3, 1), tally("y", 3)], by_recording=True).splitlines() == [
        "recording  which ends  wire  cases  ok  verdict",
        "a          ok          x         3   2  1 FAILED",
        "a          ok          y         3   3  good",
    ]


def test_a_fault_is_told_once_with_all_its_wires() -> None:
    found = [tally("x", 9, 2), tally("y", 9, 2), tally("z", 9), tally("x", 9, 1, "b")]
    assert failures(found) == [
        "FAILED a: 2 of 9 cuts, first after 7 bytes: why (x; y)",
        "FAILED b: 1 of 9 cuts, first after 7 bytes: why (x)",
    ]


def test_a_flood_of_faults_is_cut_short() -> None:
    lines = failures([tally("x", 9, 1, str(number)) for number in range(100)])
    assert len(lines) == 41
    assert lines[-1] == "and 60 more like these"


def test_the_summary_has_the_rate_and_the_verdict() -> None:
    assert summary([tally("x", 3000)], 2.0) == "3,000 cases in 2.0 s (90,000 a minute): all good"
    assert summary([tally("x", 3000, 4)], 2.0).endswith(": 4 FAILED")


def test_the_first_cut_of_several_parts_is_the_smallest() -> None:
    whole = Tally("a", "x")
    for cut in (300, 20, 100):
        part = Tally("a", "x")
        part.count(cut, f"at {cut}")
        part.count(cut + 1, None)
        whole.add(part)
    assert (whole.cases, whole.failed, whole.first_cut, whole.reason) == (6, 3, 20, "at 20")
