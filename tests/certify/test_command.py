import asyncio
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.certify import command, crew
from gateway.certify.recordings import FOLDER, shipped
from gateway.certify.sockets import Gateway, GatewayMaker, SocketPart
from gateway.certify.sweep import Part, Sweep, Tally, parts, silence
from gateway.certify.wires import WIRES
from gateway.cli import main
from tests.certify.planted import with_fault
from tests.certify.test_faults import twice

STREAM = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.sse"
    path.write_bytes(STREAM)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["certify", *map(str, arguments)], prog_name="gateway")


def test_a_users_stream_is_certified_on_every_wire(file: Path) -> None:
    result = run(file, "--jobs", 1)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if line.startswith(str(file))]
    cuts = len(STREAM) + 1
    assert [re.split(r"  +", row)[1:] for row in rows] == [
        ["ok", wire.name, str(cuts), str(cuts), "good"] for wire in WIRES
    ]
    assert result.stdout.splitlines()[-1].startswith(f"{len(WIRES) * cuts:,} cases in ")
    assert result.stdout.endswith(": all good\n")
    assert result.stderr == ""


def test_one_dialect_alone_can_be_certified(file: Path) -> None:
    result = run(file, "--dialect", "widget", "--jobs", 1)
    assert result.exit_code == 0
    assert re.findall(r"ok +(\w+) ", result.stdout) == ["widget", "widget"]


def test_more_processes_come_to_the_same_verdicts(file: Path) -> None:
    alone, together = (run(file, "--dialect", "widget", "--jobs", jobs) for jobs in (1, 2))
    assert together.exit_code == 0
    assert together.stdout.splitlines()[:-1] == alone.stdout.splitlines()[:-1]


def test_a_truncated_recording_is_certified_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "cut.sse"
    path.write_bytes(STREAM[:70])
    result = run(path, "--dialect", "widget", "--jobs", 1)
    assert result.exit_code == 0
    assert re.search(r"cut\.sse +truncated +widget ndjson +71 +71 +good", result.stdout)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["--dialect", "klingon"], "'hyponema', 'hyperleap', 'widget', 'helper'"),
        (["--protocol", "gopher"], "'openai', 'anthropic'"),
        (["--jobs", "0"], "x>=1"),
        (["nothing.sse"], "nothing.sse: No such file or directory"),
        ([str(FOLDER)], f"{FOLDER}: Is a directory"),
        ([__file__], "give --protocol openai or anthropic"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(arguments: list[str], advice: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert advice in result.stderr


def test_one_bad_file_stops_all_before_anything_is_played(file: Path) -> None:
    result = run(file, "nothing.sse")
    assert (result.exit_code, result.stdout) == (2, "")


def no_gateway(values: Mapping[str, object]) -> AbstractAsyncContextManager[Gateway]:
    raise AssertionError("no gateway was asked for")


def certified(*files: Path, play: crew.Player, sockets: bool) -> tuple[int, str]:
    out = io.StringIO()
    code = command.certify(
        files,
        dialect=None,
        protocol=None,
        sockets=sockets,
        jobs=1,
        make=no_gateway,
        out=out,
        err=io.StringIO(),
        play=play,
    )
    return code, out.getvalue()


def test_a_failure_exits_with_1_and_names_recording_wire_offset_and_reason(file: Path) -> None:
    wires = [with_fault("hyponema sse", twice), *WIRES[1:]]

    def planted(
        given: Sequence[crew.AnyPart], *, dialect: str | None, make: GatewayMaker, jobs: int
    ) -> Iterator[list[Tally]]:
        for part in given:
            with silence():
                sweep = Sweep(part.recording, wires)
                yield asyncio.run(sweep.play(range(part.begin, part.end)))

    code, shown = certified(file, play=planted, sockets=False)
    assert code == 1
    first = STREAM.index(b'"Hi"}}]}') + len(b'"Hi"}}]}')
    failed = len(STREAM) + 1 - first
    assert (
        f"FAILED {file}: {failed} of {len(STREAM) + 1} cuts, first after {first} bytes: "
        "an event after the terminal one (hyponema sse)\n"
    ) in shown
    assert shown.endswith(f": {failed} FAILED\n")


def test_the_shipped_recordings_go_through_codecs_and_four_over_sockets() -> None:
    given: list[crew.AnyPart] = []

    def noted(
        work: Sequence[crew.AnyPart], *, dialect: str | None, make: GatewayMaker, jobs: int
    ) -> Iterator[list[Tally]]:
        given.extend(work)
        return iter(())

    assert certified(play=noted, sockets=True)[0] == 0
    swept = [part for part in given if isinstance(part, Part)]
    assert sorted(swept, key=repr) == sorted((p for r in shipped() for p in parts(r)), key=repr)
    over_sockets = [part for part in given if isinstance(part, SocketPart)]
    assert {part.dialect for part in over_sockets} == {"hyponema", "hyperleap", "widget", "helper"}
    for part in over_sockets:
        end = max(p.end for p in over_sockets if (p.dialect, p.hush) == (part.dialect, part.hush))
        assert end == len(part.recording.data) + 1
