"""What other processes do to a store's file: `python -m tests.stores.processes VERB PATH …`."""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from gateway.errors import GatewayError
from gateway.messages import ConversationKey
from gateway.stores import SqliteStore
from tests.stores.rig import add, make
from tests.stores.samples import KEY, exchange


def hold(path: str, seconds: str) -> None:
    """Keeps everybody else from writing."""
    connection = apsw.Connection(path)
    connection.set_busy_timeout(2000)
    connection.execute("BEGIN EXCLUSIVE")
    print("held", flush=True)
    time.sleep(float(seconds))
    connection.execute("COMMIT")


def append(path: str, conversation: str, count: str) -> None:
    """Appends exchanges one by one and says each that is acknowledged."""

    async def run() -> None:
        store = SqliteStore(path, retention_days=90)
        await store.open()
        key = ConversationKey("acme", "widget", conversation)
        await make(store, key)
        for number in range(int(count)):
            await add(store, key, exchange(number, "x" * 500))
            print(number, flush=True)
        await store.close()

    asyncio.run(run())


def leave(path: str) -> None:
    """Ends without closing the store, with a write on its way."""

    async def run() -> None:
        store = SqliteStore(path, retention_days=90)
        await store.open()
        await make(store)
        await add(store, KEY, exchange(1))
        print("appended", flush=True)
        asyncio.create_task(add(store, KEY, exchange(2)))  # noqa: RUF006 - left behind
        await asyncio.sleep(0)

    asyncio.run(run())


def fail_to_write(path: str) -> None:
    """Meets a limit on the file's size in the middle, and says how each append went."""

    async def run() -> None:
        store = SqliteStore(path, retention_days=90)
        await store.open()
        await make(store)
        await add(store, KEY, exchange(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = Path(f"{path}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, hard))
        print(await _outcome(store, 2, "x" * 100_000), flush=True)
        print(len((await store.load(KEY, messages=100)).messages), flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        print(await _outcome(store, 3, "x" * 100_000), flush=True)
        await store.close()

    asyncio.run(run())


async def _outcome(store: SqliteStore, number: int, text: str) -> str:
    try:
        await add(store, KEY, exchange(number, text))
    except GatewayError as error:
        return error.kind
    return "appended"


def open_as_nobody(path: str) -> None:
    """Says what comes of opening the store as somebody whom file modes bind."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)

    async def run() -> None:
        store = SqliteStore(path, retention_days=90)
        try:
            await store.open()
        except GatewayError as error:
            print(f"{error.kind}: {error}", flush=True)
        else:
            print("opened", flush=True)
            await store.close()

    asyncio.run(run())


VERBS: dict[str, Callable[..., None]] = {
    verb.__name__: verb for verb in (hold, append, leave, fail_to_write, open_as_nobody)
}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
