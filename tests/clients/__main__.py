"""Lets the clients that people really have talk to a gateway, and judges what they would see.

    python -m tests.clients

curl, Python's and npm's clients, and the samples printed in the vendors' documents read every
case of `cases.py` over every version of HTTP that they speak. npm packages are installed from the
lock when `CI=true`; without them the rows that need them are left out, and the output says so.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.ci.table import Table
from tests.clients import fetching, journey, node, raw, samples
from tests.clients.grid import Grid
from tests.clients.stage import Stage, open_stage

_SETTLED_S: Final = 10.0


async def main() -> int:
    """The exit status."""
    table = Table("clients")
    grid = Grid(table)
    npm = await node.ready(table)
    with tempfile.TemporaryDirectory() as directory:
        async with open_stage(Path(directory)) as stage:
            if npm:
                await journey.check(stage, table)
            await raw.check(stage, grid)
            await samples.check(stage, grid, npm=npm)
            if npm:
                await fetching.check(stage, grid)
                await node.check(stage, grid)
            await _versions(stage, grid, journeys=npm)
    grid.print()
    return table.close()


async def _versions(stage: Stage, grid: Grid, *, journeys: bool) -> None:
    """Whether the gateway saw every client come with the version of HTTP that its row says."""
    wanted = Counter[str]()
    for client, cells in grid.rows:
        wanted[client.http.split()[0]] += len(cells)
    if journeys:
        wanted += journey.TURNS
    seen = await stage.turns()
    end = time.monotonic() + _SETTLED_S
    while seen != wanted and time.monotonic() < end:
        await asyncio.sleep(0.1)
        seen = await stage.turns()
    text = ", ".join(f"HTTP/{http}: {turns}" for http, turns in sorted(wanted.items()))
    grid.table.row("turns", text, good=seen == wanted, saw=seen)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
