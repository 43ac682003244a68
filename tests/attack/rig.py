"""What an attack is measured with: a gateway with short clocks, and the resources that it holds."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from tests.e2e.routes import WIDGET
from tests.e2e.wire import Exchange
from tests.e2e.world import World, open_world, read

BODY_S: Final = 1.5
SEND_S: Final = 1.5
IDLE_S: Final = 2.0
OUTPUT_BYTES: Final = 1_048_576
# What a clock may be late by on two busy cores.
LATE_S: Final = 8.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def open_rig(directory: Path) -> AsyncIterator[World]:
    """A world whose gateway loses patience soon."""
    limits = {
        "body_s": BODY_S,
        "send_s": SEND_S,
        "connection_idle_s": IDLE_S,
        "output_bytes": OUTPUT_BYTES,
    }
    async with open_world(directory, limits=limits) as world:
        yield world


def _processes(world: World) -> list[Path]:
    group = world.gateway.pid
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    found.append(folder)
    return found


def resident_bytes(world: World) -> int:
    """Memory that the gateway's processes hold."""
    total = 0
    for folder in _processes(world):
        with suppress(OSError):
            total += int((folder / "statm").read_text().split()[1]) * _PAGE
    return total


def descriptors(world: World) -> int:
    """Files and sockets that the gateway's processes hold, but the connections kept for the model.

    Those are kept for a while on purpose.
    """
    total = -world.upstream.open_connections
    for folder in _processes(world):
        with suppress(OSError):
            total += len(list((folder / "fd").iterdir()))
    return total


async def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether it holds before the time is over."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


async def settles(world: World) -> bool:
    """Whether no turn and no call of the model is left."""
    try:
        await world.upstream_is_alone(LATE_S)
        await world.gateway.eventually("chatgw_turns_in_flight", 0)
    except AssertionError:
        return False
    return True


async def serves(world: World, times: int = 1) -> bool:
    """Whether good clients get their replies."""
    for number in range(times):
        world.reply(f"Reply {number}")
        answer = await world.ask(WIDGET, "Hello", protocol="h2" if number % 2 else "h1")
        if answer.status != 200 or read(WIDGET, answer).text != f"Reply {number}":
            return False
    return True


async def completes(exchange: Exchange, text: str) -> bool:
    """Whether a widget stream that is under way ends well and says this."""
    while await exchange.part() is not None:
        pass
    if not exchange.answer.ended:
        return False
    reader = read(WIDGET, exchange.answer)
    return (reader.text, reader.terminals) == (text, ["ok"])
