import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.upstreams.embedded import EmbeddedModel, KeptModel, StartError

READY = 'print(\'{"address": "http://127.0.0.1:9"}\', flush=True)\n'
BOUND = 10.0


def program(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", "import os, signal, sys, time\n" + code)


def is_alive(pid: int) -> bool:
    """False for a zombie's number too, once it was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.01)


Start = Callable[[str], EmbeddedModel]


@pytest.fixture
async def embedded() -> AsyncIterator[Start]:
    made: list[EmbeddedModel] = []

    def start(code: str, start_s: float = BOUND) -> EmbeddedModel:
        made.append(EmbeddedModel(start_s=start_s, command=program(code)))
        return made[-1]

    yield start
    for model in made:
        await model.stop()


async def test_a_server_is_started_and_ended(embedded: Start) -> None:
    model = embedded(READY + "sys.stdin.read()")
    said: list[str] = []
    assert await model.start(said.append) == "http://127.0.0.1:9/v1"
    assert "loading" in said[0]
    assert "ready" in said[1]
    pid = model.pid
    assert pid is not None
    assert is_alive(pid)
    await model.stop()
    assert model.pid is None
    assert not is_alive(pid)
    assert not model.died.is_set()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('print(\'{"missing": "xllamacpp"}\')', "xllamacpp: pip install --no-deps -r"),
        ('print(\'{"failed": "no such file"}\')', "no such file"),
        ("sys.exit(1)", "died while loading"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "died while loading"),
        ("print('hello', flush=True); time.sleep(60)", "died while loading"),
        ("print('[1]', flush=True); time.sleep(60)", "died while loading"),
        ("print('x' * 1_000_000, flush=True); time.sleep(60)", "died while loading"),
    ],
)
async def test_a_server_that_does_not_start_says_what_to_do(
    embedded: Start, code: str, words: str
) -> None:
    model = embedded(code)
    with pytest.raises(StartError, match=words):
        await model.start(lambda text: None)
    assert model.pid is None


async def test_a_program_that_is_not_there_is_a_start_error(tmp_path: Path) -> None:
    model = EmbeddedModel(command=(str(tmp_path / "nothing"),))
    with pytest.raises(StartError):
        await model.start(lambda text: None)
    await model.stop()


async def test_starting_has_a_clock() -> None:
    model = EmbeddedModel(start_s=0.3, command=program("sys.stdin.read()"))
    with pytest.raises(StartError, match=r"0\.3 s"):
        await model.start(lambda text: None)
    assert model.pid is None


async def test_a_start_that_is_cancelled_leaves_nothing_running(embedded: Start) -> None:
    model = embedded("sys.stdin.read()")
    starting = asyncio.create_task(model.start(lambda text: None))
    await until(lambda: model.pid is not None)
    pid = model.pid
    assert pid is not None
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_alive(pid)


async def test_the_death_of_the_server_is_noticed(embedded: Start) -> None:
    model = embedded(READY + "sys.stdin.read()")
    await model.start(lambda text: None)
    pid = model.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(BOUND):
        await model.died.wait()
    assert not is_alive(pid)
    await model.stop()


async def test_a_server_that_does_not_want_to_end_is_killed(embedded: Start) -> None:
    model = embedded(READY + "time.sleep(600)")
    await model.start(lambda text: None)
    pid = model.pid
    assert pid is not None
    await model.stop()
    assert not is_alive(pid)


async def test_the_server_gets_no_variable_that_may_hold_a_secret(
    embedded: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_UPSTREAMS__MAIN__API_KEY", "sk-canary")
    monkeypatch.setenv("ANY_TOKEN", "canary")
    said = "import json\nprint(json.dumps({'failed': ' '.join(sorted(os.environ))}), flush=True)"
    with pytest.raises(StartError) as caught:
        await embedded(said).start(lambda text: None)
    assert "PATH" in str(caught.value)
    assert "GATEWAY" not in str(caught.value)
    assert "TOKEN" not in str(caught.value)


async def test_the_server_does_not_outlive_its_parent(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = READY + f"open({str(note)!r}, 'w').write(str(os.getpid()))\nsys.stdin.read()"
    parent = (
        "import asyncio, os, signal\n"
        "from gateway.upstreams.embedded import EmbeddedModel\n"
        "async def main():\n"
        f"    model = EmbeddedModel(command={program(child)!r})\n"
        "    await model.start(lambda text: None)\n"
        f"    while not os.path.exists({str(note)!r}): await asyncio.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", parent], cwd=root, timeout=30, check=False
    )
    assert done.returncode == -signal.SIGKILL
    await until(lambda: note.exists() and note.read_text() != "")
    pid = int(note.read_text())
    # Nobody waits for an orphan here, so its state is read: a zombie has ended.
    await until(lambda: _ended(pid))


def _ended(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return not is_alive(pid)
    return state == "Z"


# Listens nowhere, but notes on which port it was to listen.
NOTES_ITS_PORT = """
with open({file!r}, "a") as file: file.write(sys.argv[1] + " ")
print('{{"address": "http://127.0.0.1:4321"}}', flush=True)
sys.stdin.read()
"""


async def test_a_kept_model_that_dies_is_started_again_at_the_same_port(tmp_path: Path) -> None:
    ports = tmp_path / "ports"
    kept = KeptModel(command=program(NOTES_ITS_PORT.format(file=str(ports))))
    assert await kept.start(lambda _: None) == "http://127.0.0.1:4321/v1"
    first = kept.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: ports.read_text() == "0 4321 ")
    await until(lambda: kept.pid not in (None, first))
    second = kept.pid
    await kept.stop()
    assert second is not None
    assert not is_alive(second)
    assert kept.pid is None


async def test_a_kept_model_that_cannot_start_can_be_tried_again(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"if not os.path.exists({str(marker)!r}): sys.exit(1)\n{READY}sys.stdin.read()"
    kept = KeptModel(command=program(code))
    with pytest.raises(StartError):
        await kept.start(lambda _: None)
    marker.touch()
    assert await kept.start(lambda _: None) == "http://127.0.0.1:9/v1"
    await kept.stop()
