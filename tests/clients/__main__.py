"""Lets the clients that people really have talk to a gateway, and judges what they would see.

    python -m tests.clients

Node: the published Helper client over AI SDK 4, and AI SDK 5 and 6 over their default transport;
every golden UI message stream through the first and last releases of AI SDK 5, 6 and 7.
Python: requests with the widget page's own loop, httpx over HTTP/2. curl over both versions of
HTTP, every streaming route. npm packages are installed from the lock when `CI=true`; without them
the Node rows are left out and the output says so.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.ci.table import Table
from tests.clients import curl, node, python, transcripts
from tests.e2e.world import open_world


async def main() -> int:
    """The exit status."""
    table = Table("clients")
    with tempfile.TemporaryDirectory() as directory:
        async with open_world(Path(directory)) as world:
            await curl.check(world, table)
            await python.check(world, table)
            if await node.ready(table):
                await node.check(world, table)
                await transcripts.check(table)
    return table.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
