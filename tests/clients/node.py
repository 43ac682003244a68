"""The npm clients: `helper.mjs` (Helper over AI SDK 4) and `aisdk.mjs` (AI SDK 5 and 6).

Each run of a script is one message; it prints what its user would have seen as one JSON object.
"""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Final

from tests.ci.table import Table
from tests.clients.cases import CASES, Case
from tests.e2e.config import EMAIL, secret_of, token_of
from tests.e2e.routes import HELPER
from tests.e2e.world import World

HERE: Final = Path(__file__).parent
SCRIPT_S: Final = 30.0
VERSIONS: Final = ("ai5", "ai6")
USAGE: Final = {"promptTokens": 11, "completionTokens": 7}


async def ready(table: Table) -> bool:
    """Whether the scripts can run; installs their packages in CI."""
    if shutil.which("node") is None:
        table.leave_out("npm clients", "node >= 20")
        return False
    _, output = await _run("node", "--version")
    if int(output.removeprefix("v").split(".")[0]) < 20:
        table.leave_out("npm clients", f"node >= 20, this is {output.strip()}")
        return False
    if os.environ.get("CI") == "true":
        status, output = await _run("npm", "ci", "--no-progress", seconds=180)
        if status != 0:
            table.row("npm", "installs what the lock names", good=False, saw=output)
            return False
    elif not (HERE / "node_modules").is_dir():
        table.leave_out("npm clients", "CI=true, or `npm ci` in tests/clients")
        return False
    return True


async def check(world: World, table: Table) -> None:
    """Every case on every client."""
    for case in CASES:
        await _helper(world, table, case)
        for version in VERSIONS:
            await _ai_sdk(world, table, case, version)


async def _helper(world: World, table: Table, case: Case) -> None:
    case.prepare(world)
    environment = {
        "GATEWAY_URL": f"http://{world.gateway.public}",
        "HELPER_SECRET": secret_of("acme"),
        "HELPER_EMAIL": EMAIL,
    }
    seen = await script(("helper.mjs", "Hello there"), environment)
    good = _error_or_not(case, seen)
    if not case.fails:
        usage = {**USAGE, "totalTokens": sum(USAGE.values())}
        good = good and (seen["reason"], seen["usage"]) == ("stop", usage) and bool(seen["id"])
        good = good and world.last_messages() == [("user", "Hello there")]
    table.row("@helperai/client + AI SDK 4", case.name, good=good, saw=seen)


async def _ai_sdk(world: World, table: Table, case: Case, version: str) -> None:
    environment = {
        "GATEWAY_URL": f"http://{world.gateway.public}",
        "HELPER_TOKEN": token_of("acme"),
        "CONVERSATION": await world.conversation(HELPER),
    }
    case.prepare(world)
    seen = await script(("aisdk.mjs", version, "Hello there"), environment)
    good = _error_or_not(case, seen)
    if not case.fails:
        metadata = seen["metadata"]
        usage = metadata.get("usage") if isinstance(metadata, dict) else None
        good = good and seen["states"] == ["done"] and usage == USAGE
    table.row(f"AI SDK {version[2:]} DefaultChatTransport", case.name, good=good, saw=seen)


def _error_or_not(case: Case, seen: dict[str, object]) -> bool:
    """The right words are shown, and an error exactly when there was one."""
    return seen["text"] == case.text and bool(seen["error"]) == case.fails


async def script(arguments: tuple[str, ...], environment: dict[str, str]) -> dict[str, object]:
    """What a script printed: one JSON object."""
    status, output = await _run("node", *arguments, environment=environment)
    try:
        seen = json.loads(output.strip().split("\n")[-1])  # the text may have line separators
        assert isinstance(seen, dict)
    except (ValueError, IndexError):
        return {"text": None, "error": f"status {status}: {output}", "metadata": None}
    return seen


async def _run(
    *command: str, environment: dict[str, str] | None = None, seconds: float = SCRIPT_S
) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=HERE,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        return -1, f"no end within {seconds} s: {output.decode(errors='replace')}"
    return process.returncode or 0, output.decode(errors="replace")
