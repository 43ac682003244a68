"""Lets the clients that people really have talk to a gateway, and judges what they would see.

    python -m tests.clients [--write]

curl, Python's and npm's clients, and the samples printed in the vendors' documents read every
case of `cases.py` over every version of HTTP that they speak. npm packages are installed from the
lock when `CI=true`; without them the rows that need them are left out, and the output says so.
`--write` puts the table into the README, if nothing was left out and all is well.
"""

import asyncio
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Final

from tests.ci.chromium import Page
from tests.ci.table import Table
from tests.clients import alone, browser, fetching, journey, node, raw, samples
from tests.clients.grid import REASONS, Grid, compact
from tests.clients.stage import Stage, open_stage
from tests.e2e.process import ROOT

BEGIN: Final = "<!-- clients -->\n"
END: Final = "<!-- end of clients -->\n"

_SETTLED_S: Final = 10.0


async def main() -> int:
    """The exit status."""
    table = Table("clients")
    grid = Grid(table)
    npm = await node.ready(table)
    chromium = browser.ready(table)
    pages = (Page(), Page())
    shops = [await page.start() for page in pages]
    more = Counter[str]()
    with tempfile.TemporaryDirectory() as directory:
        async with open_stage(Path(directory), [page.origin for page in pages]) as stage:
            checks = {"raw": raw.check(stage, grid)}
            checks["samples"] = samples.check(stage, grid, npm=npm)
            if chromium is not None:
                checks["Chromium"] = browser.check(stage, grid, chromium, pages[0])
                checks["reads"] = alone.check(stage, table, chromium, pages[1], more)
            if npm:
                checks["fetch"] = fetching.check(stage, grid)
                checks["npm packages"] = node.check(stage, grid)
                checks["journeys"] = journey.check(stage, table)
                more += journey.TURNS
            for name, check in checks.items():
                await _guarded(name, check, table)
            await _versions(stage, grid, more)
    for shop in shops:
        await shop.cleanup()
    grid.print()
    if "--write" in sys.argv[1:] and not (table.failed or table.left_out):
        _write(grid)
    return table.close()


async def _guarded(name: str, check: Coroutine[None, None, None], table: Table) -> None:
    """One check, whose own failure does not take the others along."""
    try:
        await check
    except Exception:  # the table has to come, whatever went wrong
        table.row(name, "comes to its end", good=False, saw=traceback.format_exc())


async def _versions(stage: Stage, grid: Grid, more: Counter[str]) -> None:
    """Whether the gateway saw every client come with the version of HTTP that its row says."""
    wanted = more.copy()
    for client, cells in grid.rows:
        wanted[client.http.split()[0]] += len(cells)
    seen = await stage.turns()
    end = time.monotonic() + _SETTLED_S
    while seen != wanted and time.monotonic() < end:
        await asyncio.sleep(0.1)
        seen = await stage.turns()
    text = ", ".join(f"HTTP/{http}: {turns}" for http, turns in sorted(wanted.items()))
    grid.table.row("turns", text, good=seen == wanted, saw=seen)


def _write(grid: Grid) -> None:
    file = ROOT / "README.md"
    before, _, rest = file.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    legend = [f"{letter}: {reason}." for letter, reason in REASONS.items()]
    lines = ["", *compact(grid.rows), "", " ".join(legend), ""]
    file.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
