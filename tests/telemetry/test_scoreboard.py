import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.telemetry.scoreboard import SIZE, Scoreboard, ScoreboardError, shared_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard()


def test_a_series_has_as_many_cells_as_asked_for(board: Scoreboard) -> None:
    assert board.add("a", ("x", "y"), 1) == 0
    assert board.add("b", (), 5) == 1
    assert board.add("a", ("x", "z"), 1) == 6
    assert board.series() == [(0, ("a", ("x", "y"))), (1, ("b", ())), (6, ("a", ("x", "z")))]
    board.cells[6] = 2.5
    assert board.copy() == [0, 0, 0, 0, 0, 0, 2.5]


def test_series_that_come_later_are_found_too(board: Scoreboard) -> None:
    board.add("a", (), 1)
    assert len(board.series()) == 1
    board.add("b", ('quote " and \n', "\u1234"), 1)
    assert board.series()[1] == (1, ("b", ('quote " and \n', "\u1234")))


def test_without_room_there_is_no_series_and_the_others_stay(board: Scoreboard) -> None:
    assert board.add("a", (), 131_000) == 0
    assert board.add("b", (), 100) is None
    assert board.add("c", (), 72) == 131_000
    assert board.add("d", (), 1) is None
    assert [key for _, key in board.series()] == [("a", ()), ("c", ())]
    assert board.add("long", ("x" * SIZE,), 0) is None


def test_what_a_process_wrote_can_be_read_after_it_was_killed() -> None:
    memory = shared_file()
    board = Scoreboard(memory)
    code = (
        "import os, signal, sys; from gateway.telemetry.scoreboard import Scoreboard\n"
        "board = Scoreboard(int(sys.argv[1]))\n"
        "board.cells[board.add('a', ('x',), 1)] = 7.0\n"
        "board.beat = 3.5\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(memory)],
        cwd=ROOT,
        pass_fds=(memory,),
        check=False,
        timeout=30,
    )
    os.close(memory)
    assert done.returncode == -9
    assert board.series() == [(0, ("a", ("x",)))]
    assert board.copy() == [7.0]
    assert board.beat == 3.5


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot seal memory")
def test_the_memory_cannot_be_cut_under_a_reader() -> None:
    memory = shared_file()
    with pytest.raises(PermissionError):
        os.ftruncate(memory, 0)
    os.close(memory)


@pytest.mark.parametrize(
    "line", [b"no json\n", b"{}\n", b"[1]\n", b'["a", "b", []]\n', b'[-1, "b", []]\n', b"\xff\n"]
)
def test_a_directory_that_makes_no_sense_is_an_error_each_time(
    board: Scoreboard, line: bytes
) -> None:
    board.add("a", (), 1)
    end = board._valid[0]
    board._directory[end : end + len(line)] = line
    board._valid[0] = end + len(line)
    for _ in range(2):
        with pytest.raises(ScoreboardError):
            board.series()


def test_a_directory_that_claims_to_be_longer_than_its_place_is_an_error(board: Scoreboard) -> None:
    board._valid[0] = 2**60
    with pytest.raises(ScoreboardError):
        board.series()
