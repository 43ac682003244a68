"""Attacks a gateway on loopback for about half a minute, and judges how it takes it.

    python -m tests.attack

Each attack is bounded in count and time. After each one no turn may be left, and at the end the
gateway may not hold more files and sockets than before.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.attack.cases import CASES
from tests.attack.rig import IDLE_S, LATE_S, descriptors, open_rig, serves, settles, within
from tests.ci.table import Table
from tests.e2e.world import World

_SPARE_DESCRIPTORS = 2


async def attack(world: World, table: Table) -> None:
    """Every case, and what is left over after all of them."""
    await serves(world, 4)
    before = descriptors(world)
    for case in CASES:
        world.forget_replies()
        began = time.monotonic()
        tries, wrong = await case(world)
        if not await settles(world):
            wrong.append("a turn or a call of the model was left over")
        took = f"{tries} tries, {time.monotonic() - began:.1f} s"
        table.row(case.__name__.replace("_", " "), took, good=not wrong, saw="; ".join(wrong))
    limit = before + _SPARE_DESCRIPTORS
    good = await within(IDLE_S + LATE_S, lambda: descriptors(world) <= limit)
    held = f"{before} before, {descriptors(world)} after"
    table.row("files and sockets", held, good=good, saw=held)
    noise = world.gateway.noise
    table.row("log", "every line is JSON", good=not noise, saw=noise)


async def main() -> int:
    """The exit status."""
    table = Table("attack")
    with tempfile.TemporaryDirectory() as directory:
        async with open_rig(Path(directory)) as world:
            await attack(world, table)
    return table.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
