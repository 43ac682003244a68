"""The npm clients: one Node process per package, which runs all of its rows and cases.

A script gets its messages as JSON and prints what its user would have seen of each.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.readers.helper import READERS
from tests.ci.table import Table
from tests.clients.cases import CASES, Fact
from tests.clients.grid import Client, Grid
from tests.clients.stage import Stage
from tests.clients.wires import WIRES, Seen
from tests.e2e.tls import CERTIFICATE
from tests.golden import FOLDER

HERE: Final = Path(__file__).parent
OLDEST: Final = (20, 18, 1)
INSTALL_S: Final = 180.0
SCRIPT_S: Final = 90.0
VERSIONS: Final = ("1.1", "2 TLS")
_AT_ONCE: Final = 2

# An SDK hides what HTTP said; one that only reads has no state of a chat either.
_SDK: Final = frozenset[Fact]({"status", "kept_alive"})
_READER: Final = _SDK | frozenset[Fact]({"state"})
_V4: Final = _SDK | frozenset[Fact]({"open"})

GOLDEN: Final = "every golden stream"


def golden_files(suffix: str) -> list[Path]:
    """The golden transcripts of that kind."""
    return sorted((FOLDER / "helper").glob(f"*.{suffix}"))


@dataclass(frozen=True)
class Script:
    """One process: a file, the package that it tries, what that is and what it has no place for.

    `suffix` names the golden streams that it reads too, if it can be given any.
    """

    file: str
    package: str
    name: str
    wire: str
    blind: frozenset[Fact]
    suffix: str = ""

    @property
    def clients(self) -> list[Client]:
        """Its rows."""
        return [Client(self.name, http, self.wire, self.blind) for http in VERSIONS]

    @property
    def golden(self) -> dict[str, list[dict[str, str]]]:
        """Its golden streams, as a row of messages that bring their answers along."""
        files = golden_files(self.suffix) if self.suffix else []
        jobs = [{"case": file.name, "body": file.read_text(), "text": "Hello"} for file in files]
        return {GOLDEN: jobs} if jobs else {}


_V4_READER: Final = _READER | _V4
_EARLY: Final = ("helper v4, early", _V4_READER, "data-stream-early.txt")

SCRIPTS: Final = (
    *(
        Script("data-stream.mjs", package, f"@helperai/client 0.4.5, ui-utils {version}", *how)
        for package, version, how in (
            ("ui-utils-1.0", "1.0.0", _EARLY),
            ("ui-utils-1.1", "1.1.0", _EARLY),
            ("@ai-sdk/ui-utils", "1.2.11", ("helper v4", _V4_READER, "data-stream.txt")),
        )
    ),
    Script("use-chat.mjs", "", "AI SDK 4 useChat (react 1.2.12)", "helper v4", _V4),
    *(
        Script(
            "ui-messages.mjs",
            package,
            f"AI SDK {version} reader",
            "helper v5",
            _READER,
            "ui-message-stream.sse",
        )
        for package, version in (
            ("ai5-first", "5.0.0"),
            ("ai5", "5.0.277"),
            ("ai6-first", "6.0.0"),
            ("ai6", "6.0.326"),
            ("ai7-first", "7.0.0"),
            ("ai7", "7.0.173"),
        )
    ),
    *(
        Script("ui-chat.mjs", package, f"AI SDK {package[2]} Chat (react {version})", *how)
        for package, version, how in (
            ("ai5", "2.0.280", ("helper v5", _SDK)),
            ("ai6", "3.0.326", ("helper v5", _SDK)),
            ("ai7", "4.0.177", ("helper v5", _SDK)),
        )
    ),
)


async def ready(table: Table) -> bool:
    """Whether the scripts can run; installs their packages in CI."""
    needs = "node >= " + ".".join(map(str, OLDEST))
    if shutil.which("node") is None:
        table.leave_out("npm clients", needs)
        return False
    _, output = await run("node", "--version")
    if tuple(map(int, re.findall(r"\d+", output)[:3])) < OLDEST:
        table.leave_out("npm clients", f"{needs}, this is {output.strip()}")
        return False
    if os.environ.get("CI") == "true":
        status, output = await run("npm", "ci", "--no-progress", seconds=INSTALL_S)
        if status != 0:
            table.row("npm", "installs what the lock names", good=False, saw=output)
            return False
    elif not _installed():
        table.leave_out("npm clients", "CI=true, or `npm ci` in tests/clients")
        return False
    return True


def _installed() -> bool:
    """Whether every package is there in the version that is asked for."""
    for name, wanted in json.loads((HERE / "package.json").read_text())["dependencies"].items():
        file = HERE / "node_modules" / name / "package.json"
        if not file.is_file():
            return False
        if json.loads(file.read_text())["version"] != wanted.rpartition("@")[2]:
            return False
    return True


async def check(stage: Stage, grid: Grid) -> None:
    """Every case with every package over both versions of HTTP, and every golden stream."""
    turnstile = asyncio.Semaphore(_AT_ONCE)

    async def guarded(script: Script) -> dict[str, dict[str, Seen]]:
        async with turnstile:
            jobs = {one.row: await stage.jobs(WIRES[script.wire]) for one in script.clients}
            return await seen_by((script.file, script.package), {**jobs, **script.golden})

    rows = await asyncio.gather(*map(guarded, SCRIPTS))
    for script, seen in zip(SCRIPTS, rows, strict=True):
        for client in script.clients:
            grid.add(client, seen.get(client.row, {}))
        if script.golden:
            wrong = _misread(script.suffix, seen.get(GOLDEN, {}))
            grid.table.row(script.name, GOLDEN, good=not wrong, saw=wrong)


def _misread(suffix: str, seen: Mapping[str, Seen]) -> list[object]:
    """The golden streams that were read otherwise than this project's own reader does."""
    wrong: list[object] = []
    for file in golden_files(suffix):
        reader = READERS[suffix.partition(".")[0]]()
        reader.feed(file.read_bytes())
        reader.close()
        wanted = (reader.text, reader.terminals == ["error"])
        shown = seen.get(file.name, {})
        got = (shown.get("text"), shown.get("error", "nothing") is not None)
        if got != wanted:
            wrong.append((file.name, shown))
    return wrong


async def seen_by(
    script: Sequence[str], jobs: Mapping[str, Sequence[Mapping[str, object]]]
) -> dict[str, dict[str, Seen]]:
    """What a script saw, by row and case."""
    text = json.dumps({"jobs": jobs, "ca": CERTIFICATE.read_text()})
    status, output = await run("node", *script, text=text, seconds=SCRIPT_S)
    try:
        seen = json.loads(output.strip().split("\n")[-1])
    except (ValueError, IndexError):
        crashed: Seen = {"crashed": f"status {status}: {output[-1000:]}"}
        return {row: {case.name: crashed for case in CASES} for row in jobs}
    assert isinstance(seen, dict)
    return seen


async def run(*command: str, text: str = "", seconds: float = 30.0) -> tuple[int, str]:
    """Exit status and output of a program that is given a text."""
    process = await asyncio.create_subprocess_exec(
        *(part for part in command if part),
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate(text.encode())
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        return -1, f"no end within {seconds} s: {output.decode(errors='replace')}"
    return process.returncode or 0, output.decode(errors="replace")
