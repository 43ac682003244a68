import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
from pathlib import Path
from typing import Final

import pytest

from gateway.telemetry.catalogue import BY_NAME
from tests.e2e.http1 import H1
from tests.e2e.process import ROOT, clean_environment
from tests.e2e.wire import Address, Request, whole
from tests.readme import Block, ReadmeError, blocks, normal

PUBLIC: Final = "127.0.0.1:8080"
ADMIN: Final = "127.0.0.1:9464"
START_S: Final = 100.0
BLOCK_S: Final = 60.0
TREE: Final = ("gateway", "config", "deploy", "Makefile", "pyproject.toml")


class Reader:
    """Someone with a fresh copy of the tree and one shell, who pastes block after block.

    The addresses that the README names are taken by ports of the system's choosing, so that a
    gateway that already runs here is not in the way.
    """

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.ports = {PUBLIC: f"127.0.0.1:{_free_port()}", ADMIN: f"127.0.0.1:{_free_port()}"}
        self.server: asyncio.subprocess.Process | None = None
        self._shell: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        kept = clean_environment(
            GATEWAY_SERVER__BIND=f'["{self.ports[PUBLIC]}"]',
            GATEWAY_ADMIN__BIND=self.ports[ADMIN],
        )
        del kept["PYTHONPATH"]
        return {name: value for name, value in kept.items() if not name.startswith("MAKE")}

    def _moved(self, text: str) -> str:
        for named, taken in self.ports.items():
            text = text.replace(named, taken)
        return text

    def _moved_back(self, text: str) -> str:
        for named, taken in self.ports.items():
            text = text.replace(taken, named)
        return text

    async def serve(self, block: Block) -> None:
        await self.stop()
        with (self.tree / "server.log").open("ab") as log:
            self.server = await asyncio.create_subprocess_exec(
                "bash",
                "-euc",
                self._moved(block.script),
                cwd=self.tree,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        async with asyncio.timeout(START_S):
            while not await self._is_ready():
                if self.server.returncode is not None:
                    pytest.fail(f"{block.name} ended: {self.log()}")
                await asyncio.sleep(0.2)

    async def _is_ready(self) -> bool:
        try:
            connection = await H1.connect(Address.parse(self.ports[PUBLIC]))
        except OSError:
            return False
        answer = await whole(await connection.send(Request("GET", "/readyz")))
        await connection.close()
        return answer.status == 200

    async def paste(self, block: Block) -> str:
        if self._shell is None:
            self._shell = await asyncio.create_subprocess_exec(
                "bash",
                "-eu",
                "-o",
                "pipefail",
                cwd=self.tree,
                env=self.environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                limit=1 << 20,
                start_new_session=True,
            )
        shell = self._shell
        assert shell.stdin is not None
        assert shell.stdout is not None
        script = self.tree / f"{block.name}.block"
        script.write_text(self._moved(block.script) + "\n")
        end = f"=== end of {block.name} ==="
        shell.stdin.write(f". {script} </dev/null; printf '\\n%s\\n' '{end}'\n".encode())
        await shell.stdin.drain()
        try:
            async with asyncio.timeout(BLOCK_S):
                output = await shell.stdout.readuntil(f"\n{end}\n".encode())
        except asyncio.IncompleteReadError as cut:
            output = cut.partial
            pytest.fail(f"{block.name} failed: {output.decode()}\nserver: {self.log()}")
        return self._moved_back(output.decode().removesuffix(f"\n{end}\n"))

    def log(self) -> str:
        file = self.tree / "server.log"
        return file.read_text()[-4000:] if file.exists() else "none"

    async def stop(self) -> None:
        if self.server is not None and self.server.returncode is None:
            os.killpg(self.server.pid, signal.SIGINT)
            async with asyncio.timeout(30):
                await self.server.wait()

    async def leave(self) -> None:
        await self.stop()
        if self._shell is not None and self._shell.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it may be on its way out
                os.killpg(self._shell.pid, signal.SIGKILL)
            await self._shell.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=ignored)
        else:
            shutil.copy2(source, tmp_path / name)
    for pins in ROOT.glob("requirements*.txt"):
        shutil.copy2(pins, tmp_path / pins.name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


@pytest.mark.model
@pytest.mark.timeout(300)
async def test_every_command_of_the_readme_works_and_prints_what_it_shows(tree: Path) -> None:
    reader = Reader(tree)
    different = []
    try:
        for block in blocks((ROOT / "README.md").read_text()):
            if block.is_server:
                await reader.serve(block)
                continue
            printed = await reader.paste(block)
            if block.shown is not None and normal(printed) != normal(block.shown):
                different.append((block.name, normal(printed), normal(block.shown)))
    finally:
        await reader.leave()
    assert different == []


async def test_a_reader_keeps_variables_and_functions_between_blocks(tree: Path) -> None:
    reader = Reader(tree)
    try:
        await reader.paste(Block("first", "word=tea\nsay() { printf '%s' \"$1\"; }"))
        assert await reader.paste(Block("second", 'say "more $word"')) == "more tea"
    finally:
        await reader.leave()


@pytest.mark.parametrize("script", ["false", "nonsense-command", "echo $unset", "false | true"])
async def test_a_reader_notices_a_command_that_fails(tree: Path, script: str) -> None:
    reader = Reader(tree)
    try:
        with pytest.raises(pytest.fail.Exception, match="broken failed"):
            await reader.paste(Block("broken", script))
    finally:
        await reader.leave()


def test_every_metric_has_its_place_in_the_readme() -> None:
    told = set(re.findall(r"chatgw_\w+", (ROOT / "README.md").read_text()))
    assert told == {name for name in BY_NAME if name.startswith("chatgw_")}


def test_blocks_come_in_order_with_what_they_show() -> None:
    text = """
<!-- tested: server -->
```sh
make run
```

<!-- tested: ask -->
```sh
curl -s x
```

<!-- output of: ask -->
```json
{"a": 1}
```
Prose, and a fence that is no command:
```yaml
a: 1
```
"""
    assert blocks(text) == [
        Block("server", "make run"),
        Block("ask", "curl -s x", '{"a": 1}'),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```sh\nmake run\n```",
        "<!-- tested: a -->\nprose between\n```sh\nmake run\n```",
        "<!-- tested: a -->\n```sh\nx\n```\n<!-- tested: a -->\n```sh\ny\n```",
        "<!-- output of: a -->\n```\nx\n```",
        "<!-- tested: a -->\n```yaml\nx: 1\n```",
    ],
    ids=["unmarked", "mark-too-far", "twice", "output-without-block", "mark-on-yaml"],
)
def test_a_block_without_a_proper_mark_is_refused(text: str) -> None:
    with pytest.raises(ReadmeError):
        blocks(text)


NDJSON: Final = """\
{"type":"start","conversationId":"j97ch2kj8xm6rpct8te5w9b1fh6pc7k8"}
{"type":"token","token":"We"}
{"type":"token","token":" are"}
{"type":"done","message":"We are","conversationId":"x"}
"""
OTHER_NDJSON: Final = """
{"type":"start","conversationId":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
{"type":"token","token":"Yes"}
…
{"type":"done","message":"Yes","conversationId":"x"}"""
SSE: Final = """\
event: token
data: {"text":"A"}

event: token
data: {"text":"B"}

event: turn_end
data: {"turn_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","latency_ms":842,"prompt_tokens":null}

"""
OTHER_SSE: Final = """\
event: token
data: {"text":"C \\" D"}

event: turn_end
data: {"turn_id":"00000000-0d44-4b50-8888-8dd25736052a","latency_ms":1,"prompt_tokens":2}
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NDJSON, OTHER_NDJSON),
        (SSE, OTHER_SSE),
        ('0:"Hi"\n0:" you"\n0:"!"', '0:"Hello"'),
        (
            '[{"a":{"content":"a"}},{"a":{"content":"b"}}]',
            '[{"a":{"content":"a"}}\n,{"a":{"content":"c"}}]',
        ),
        (
            "HTTP/1.1 200\r\ndate: now\r\nx-request-id: 1",
            "HTTP/1.1 200\ndate: then\nx-request-id: 2",
        ),
    ],
    ids=["ndjson", "sse", "data-stream", "array", "fields"],
)
def test_outputs_that_differ_in_words_and_ids_are_alike(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"type":"done"}', '{"type":"error"}'),
        ("HTTP/1.1 200", "HTTP/1.1 401"),
        ('{"error":"Unauthorized"}', '{"error":"Invalid token"}'),
        ('{"type":"token","token":"a"}\n{"type":"done"}', '{"type":"done"}'),
    ],
)
def test_outputs_that_differ_in_meaning_are_not_alike(one: str, other: str) -> None:
    assert normal(one) != normal(other)
