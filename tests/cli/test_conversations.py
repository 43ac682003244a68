import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.e2e.config import config, upstream
from tests.e2e.routes import WIDGET
from tests.e2e.world import open_world, read
from tests.stores.rig import ROOT
from tests.valkey import ValkeyProcess, valkey

ADA = "email:ada@example.com"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyProcess]:
    with valkey() as running:
        yield running


@pytest.fixture(params=["sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path, server: ValkeyProcess) -> str:
    server.say("FLUSHALL")
    return f"sqlite:{tmp_path / 'gateway.db'}" if request.param == "sqlite" else server.url


@pytest.fixture
def file(url: str, tmp_path: Path) -> Path:
    return configured(tmp_path, url)


def configured(directory: Path, url: str) -> Path:
    file = directory / "gateway.yaml"
    file.write_text(json.dumps(config({"main": upstream("http://127.0.0.1:9/v1")}, store=url)))
    return file


def run(file: Path, command: str, *arguments: str, stdin: bytes | None = None) -> Result:
    words = ["conversations", command, "--config", str(file), *arguments]
    return CliRunner().invoke(main, words, input=stdin)


def line(number: int, **members: object) -> str:
    messages = [
        {"role": "user", "text": f"Question {number}"},
        {"role": "assistant", "text": f"Answer {number}"},
    ]
    return json.dumps({"dialect": "widget", "id": f"c{number}", "messages": messages, **members})


def said(result: Result) -> str:
    # A slow machine tells its progress first.
    return result.stderr.splitlines()[-1]


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def bring(file: Path, count: int) -> None:
    given = lines(*(line(number) for number in range(count)))
    assert run(file, "import", "--tenant", "acme", "-", stdin=given).exit_code == 0


def listed(file: Path, *arguments: str) -> list[str]:
    result = run(file, "list", *arguments)
    assert result.exit_code == 0
    head, *rows = result.stdout.splitlines()
    assert head.startswith("TENANT\tDIALECT\tID\t")
    return sorted(row.split("\t")[2] for row in rows)


def test_what_was_imported_is_exported_and_imported_elsewhere(file: Path, tmp_path: Path) -> None:
    given = lines(*(line(number, subject="Größe 😀") for number in range(300)))
    result = run(file, "import", "--tenant", "acme", "-", stdin=given)
    assert (result.exit_code, said(result)) == (0, "imported 300 conversations")
    out = tmp_path / "all.jsonl"
    result = run(file, "export", str(out))
    assert (result.exit_code, said(result)) == (0, "exported 300 conversations")
    (tmp_path / "other").mkdir()
    other = configured(tmp_path / "other", f"sqlite:{tmp_path / 'other.db'}")
    assert run(other, "import", str(out)).exit_code == 0
    again = run(other, "export").stdout_bytes
    assert sorted(again.splitlines()) == sorted(out.read_bytes().splitlines())


def test_an_export_is_for_its_owner_only(file: Path, tmp_path: Path) -> None:
    bring(file, 1)
    out = tmp_path / "all.jsonl"
    assert run(file, "export", str(out)).exit_code == 0
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("/dev/full", "stopped: No space left on device, so what was written is not whole"),
        ("/dev/null/x", "stopped: Not a directory: /dev/null/x"),
    ],
)
def test_an_export_that_cannot_be_written_says_so(file: Path, out: str, told: str) -> None:
    bring(file, 1)
    result = run(file, "export", out)
    assert (result.exit_code, said(result)) == (1, told)


def test_every_problem_is_told_and_nothing_is_imported(file: Path) -> None:
    given = lines(
        line(1),
        "{",
        "",
        line(2, status="closed", **{"\x07": 1}),
        line(3, tenant="globex"),
        line(1),
        line(4, public_id="0" * 32),
        line(5, public_id="0" * 32),
    )
    result = run(file, "import", "--tenant", "acme", "-", stdin=given)
    assert result.exit_code == 1
    told = result.stderr.splitlines()
    assert [text.split(":")[0] for text in told[:-1]] == [
        *("line 2", "line 4", "line 4", "line 5", "line 6", "line 8")
    ]
    assert "\x07" not in result.stderr
    assert told[-1] == "imported 0 conversations; 6 problems"
    assert "is the conversation of line 1" in told[4]
    assert "public_id is that of line 7" in told[5]
    assert listed(file) == []


def test_an_import_can_be_judged_without_one(file: Path) -> None:
    good = run(file, "import", "--check", "--tenant", "acme", "-", stdin=lines(line(1)))
    assert (good.exit_code, good.stderr) == (0, "good\n")
    bad = run(file, "import", "--check", "-", stdin=lines(line(1)))
    assert (bad.exit_code, bad.stderr) == (1, "line 1: tenant is missing\n1 problem\n")


def test_what_is_there_stays_as_it_is(file: Path) -> None:
    bring(file, 3)
    changed = lines(*(line(number, subject="new") for number in range(5)))
    result = run(file, "import", "--tenant", "acme", "-", stdin=changed)
    assert result.exit_code == 1
    assert result.stderr.count("is there already") == 3
    assert result.stderr.endswith("imported 2 conversations; 3 problems\n")
    again = run(file, "import", "--tenant", "acme", "--skip-existing", "-", stdin=changed)
    assert (again.exit_code, again.stderr) == (
        0,
        "imported 0 conversations; 5 were there already\n",
    )
    assert '"subject":"new"' not in run(file, "export").stdout.splitlines()[0]


def test_a_public_id_of_another_conversation_is_not_passed_over(file: Path) -> None:
    known = "0" * 32
    given = [lines(line(number, public_id=known)) for number in (1, 2)]
    assert run(file, "import", "--tenant", "acme", "-", stdin=given[0]).exit_code == 0
    again = run(file, "import", "--tenant", "acme", "--skip-existing", "-", stdin=given[1])
    assert (again.exit_code, said(again)) == (1, "imported 0 conversations; 1 problem")


def test_what_has_expired_is_left_out(file: Path) -> None:
    given = lines(line(1, updated_at=1000), line(2))
    result = run(file, "import", "--tenant", "acme", "-", stdin=given)
    assert result.exit_code == 0
    assert "left out 1" in result.stderr
    assert listed(file) == ["c2"]


def test_lists_and_exports_are_filtered(file: Path) -> None:
    given = lines(line(1), line(2, dialect="helper", owner=ADA))
    run(file, "import", "--tenant", "acme", "-", stdin=given)
    assert listed(file) == ["c1", "c2"]
    assert listed(file, "--dialect", "helper") == ["c2"]
    assert listed(file, "--tenant", "globex") == []
    assert run(file, "export", "--dialect", "widget").stdout.count("\n") == 1


def test_a_conversation_is_shown_without_commands_for_the_terminal(file: Path) -> None:
    call = {"id": "x", "name": "lookup", "arguments": "{}"}
    said = [
        {"role": "user", "text": "first\nsecond \x1b[2J"},
        {"role": "assistant", "text": "Half", "status": "partial", "calls": [call]},
    ]
    given = lines(line(1, messages=said, dialect="helper", owner=ADA, subject="a\x07b"))
    run(file, "import", "--tenant", "acme", "-", stdin=given)
    result = run(file, "show", "--tenant", "acme", "--dialect", "helper", "c1")
    assert result.exit_code == 0
    assert not {"\x1b", "\x07"} & set(result.stdout)
    for part in ("acme / helper / c1", "  first\n  second", "(cut short)", "> lookup({})", ADA):
        assert part in result.stdout
    missing = run(file, "show", "--tenant", "acme", "--dialect", "widget", "c9")
    assert (missing.exit_code, missing.stderr) == (1, "unknown conversation\n")


def test_conversations_are_deleted_once_it_is_confirmed(file: Path) -> None:
    bring(file, 4)
    place = ("--tenant", "acme", "--dialect", "widget")
    assert run(file, "delete", *place, "c0", stdin=b"n\n").exit_code == 1
    assert len(listed(file)) == 4
    result = run(file, "delete", *place, "c0", "c9", stdin=b"y\n")
    assert result.exit_code == 1
    assert result.stderr.endswith("deleted 1 conversations\nthere is no conversation 'c9'\n")
    assert run(file, "delete", *place, "--all", "--yes").exit_code == 0
    assert listed(file) == []
    assert run(file, "delete", *place, "--yes").exit_code == 2
    assert run(file, "delete", *place, "--yes", "--all", "c1").exit_code == 2


def test_a_store_in_memory_cannot_be_looked_into(tmp_path: Path) -> None:
    result = run(configured(tmp_path, "memory:"), "list")
    assert result.exit_code == 2
    assert "memory:" in result.stderr


def test_a_file_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    database = tmp_path / "no.db"
    result = run(configured(tmp_path, f"sqlite:{database}"), "list")
    assert (result.exit_code, database.exists()) == (1, False)
    assert "no.db" in result.stderr


def test_a_tenant_that_is_not_configured_is_warned_of_and_its_conversations_are_there(
    file: Path,
) -> None:
    bring(file, 1)
    file.write_text(file.read_text().replace('"acme"', '"acme_inc"'))
    result = run(file, "list", "--tenant", "acme")
    assert result.stderr == "warning: tenant 'acme' is not in the configuration\n"
    assert len(result.stdout.splitlines()) == 2


def test_a_store_that_is_down_is_one_line(tmp_path: Path) -> None:
    result = run(configured(tmp_path, "valkey://127.0.0.1:9"), "list")
    assert (result.exit_code, result.stderr) == (
        1,
        "the store's server 127.0.0.1:9 cannot be reached\n",
    )


async def test_conversations_move_while_a_gateway_runs(url: str, tmp_path: Path) -> None:
    async with open_world(tmp_path, store=url) as world:
        world.reply("Hi.")
        await world.ask(WIDGET, "Hello", conversation="live")
        file = world.gateway.file
        done = gateway(file, "import", "--tenant", "acme", "-", stdin=lines(line(1)))
        assert done.returncode == 0, done.stderr
        world.reply("Welcome.")
        answer = await world.ask(WIDGET, "I am new here", conversation="c1")
        assert read(WIDGET, answer).text == "Welcome."
        assert world.last_messages()[:2] == [("user", "Question 1"), ("assistant", "Answer 1")]
        told = gateway(file, "export", "--dialect", "widget").stdout.splitlines()
        assert {json.loads(text)["id"] for text in told} == {"live", "c1"}
        place = ("--tenant", "acme", "--dialect", "widget")
        assert gateway(file, "delete", *place, "--yes", "live").returncode == 0
        world.reply("Who?")
        await world.ask(WIDGET, "Hello again", conversation="live")
        assert world.last_messages() == [("user", "Hello again")]


def gateway(
    file: Path, command: str, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    words = ["conversations", command, "--config", str(file), *arguments]
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words],
        input=stdin,
        capture_output=True,
        timeout=60,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if "GATEWAY" not in name},
    )
