"""curl over HTTP/1.1 and, by prior knowledge, over HTTP/2, on every streaming route."""

import asyncio
import shutil
from typing import Final

from tests.ci.table import Table
from tests.clients.cases import CASES, Case
from tests.e2e.routes import STREAMING, Chat
from tests.e2e.wire import Answer
from tests.e2e.world import World

VERSIONS: Final = {"HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge"}
CLOCK_S: Final = 20


async def check(world: World, table: Table) -> None:
    """Every case on every route over both versions."""
    if shutil.which("curl") is None:
        table.leave_out("curl", "curl")
        return
    for version, option in VERSIONS.items():
        for chat in STREAMING:
            for case in CASES:
                answer, status = await _curl(world, chat, case, option)
                good = status == 0 and case.is_seen(chat, answer)
                name = f"{case.name}, {chat.framing}"
                table.row(f"curl {version} {chat.dialect}", name, good=good, saw=(status, answer))


async def _curl(world: World, chat: Chat, case: Case, option: str) -> tuple[Answer, int]:
    request = chat.request(await world.conversation(chat), "Hello there")
    case.prepare(world)
    headers = [part for name, value in request.headers for part in ("-H", f"{name}: {value}")]
    process = await asyncio.create_subprocess_exec(
        "curl",
        *("--silent", "--no-buffer", "--max-time", str(CLOCK_S), option),
        *("-X", request.method, *headers, "--data-binary", "@-"),
        *("--write-out", "%{stderr}%{http_code}"),
        f"http://{world.gateway.public}{request.path}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    body, code = await process.communicate(request.body)
    return Answer(
        int(code or b"0"), [], [body], ended=process.returncode == 0
    ), process.returncode or 0
