"""A SQLite store and other processes that use its file."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import apsw

from gateway.errors import Conflict, ConversationBusy, GatewayError
from gateway.messages import Conversation, ConversationKey, Leased, Message, Once, Recorded
from gateway.ports.conversations import ConversationStore
from gateway.stores import SqliteStore
from tests.stores.samples import KEY, ids

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def opened(
    path: Path, *, retention_days: int | None = 90, clock: Callable[[], float] = time.time
) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, retention_days=retention_days, clock=clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def start(verb: str, *args: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.stores.processes",
        verb,
        *map(str, args),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )


async def say(verb: str, *args: object) -> list[str]:
    process = await start(verb, *args)
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().splitlines()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


@contextlib.asynccontextmanager
async def locked(path: Path, seconds: float) -> AsyncIterator[None]:
    process = await start("hold", path, seconds)
    assert await line(process) == "held"
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def history(store: ConversationStore, key: ConversationKey = KEY) -> list[str]:
    return ids((await store.load(key, messages=100_000)).messages)


def sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return [tuple(row) for row in connection.execute(statement)]
    finally:
        connection.close()


async def begin(
    store: ConversationStore,
    key: ConversationKey = KEY,
    *,
    identity: str | None = None,
    create: bool = True,
    once: Once | None = None,
) -> Leased | Recorded:
    return await store.begin(key, identity=identity, create=create, messages=100, once=once)


async def begun(
    store: ConversationStore,
    key: ConversationKey = KEY,
    *,
    identity: str | None = None,
    create: bool = True,
    once: Once | None = None,
) -> Leased:
    turn = await begin(store, key, identity=identity, create=create, once=once)
    assert isinstance(turn, Leased)
    return turn


async def make(store: ConversationStore, key: ConversationKey = KEY) -> Conversation:
    with contextlib.suppress(Conflict):
        await store.create(key, owner=None, subject=None)
    return await store.load(key, messages=100)


async def add(store: ConversationStore, key: ConversationKey, messages: Sequence[Message]) -> None:
    """A turn that leaves the messages, after whatever turn is running."""
    owner = (await store.load(key, messages=0)).owner
    while True:
        try:
            turn = await begun(store, key, identity=owner, create=False)
            break
        except ConversationBusy:
            await asyncio.sleep(0.001)
    try:
        await store.commit(turn.lease, messages)
    except GatewayError:
        with contextlib.suppress(GatewayError):
            await store.release(turn.lease)
        raise
