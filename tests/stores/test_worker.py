import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.errors import NotFound, StoreUnavailable
from gateway.messages import Conversation, ConversationKey
from gateway.stores import SqliteStore
from gateway.stores.worker import WAIT_S
from tests.stores.rig import opened
from tests.stores.samples import OTHER, exchange


@contextlib.asynccontextmanager
async def stalled(store: SqliteStore) -> AsyncIterator[threading.Event]:
    """The writer's thread stands still until the event is set or the block ends."""
    assert store._writer is not None
    stands, go_on = threading.Event(), threading.Event()

    def stand(_: object) -> None:
        stands.set()
        go_on.wait()

    stalling = asyncio.create_task(store._writer.call(stand))
    assert await asyncio.to_thread(stands.wait, 10)
    try:
        yield go_on
    finally:
        go_on.set()
        with contextlib.suppress(StoreUnavailable):
            await stalling


def key(number: int) -> ConversationKey:
    return ConversationKey("acme", "widget", f"{number:04d}")


async def write(store: SqliteStore, number: int) -> None:
    await store.create(key(number), owner=None, subject=None)


async def written(store: SqliteStore) -> list[int]:
    page = await store.scan(limit=2000)
    return sorted(int(entry.key.id) for entry in page.conversations)


class TestGroups:
    async def test_waiting_writes_are_one_transaction(self, path: Path) -> None:
        commits = 0

        def count() -> bool:
            nonlocal commits
            commits += 1
            return False

        async with opened(path) as store:
            async with stalled(store) as go_on:
                assert store._writer is not None
                counting = asyncio.create_task(
                    store._writer.call(lambda connection: connection.set_commit_hook(count))
                )
                writes = [asyncio.create_task(write(store, n)) for n in range(50)]
                await asyncio.sleep(0)
                go_on.set()
                await asyncio.gather(counting, *writes)
            assert commits <= 2
            assert await written(store) == list(range(50))

    async def test_a_write_that_fails_undoes_no_other(self, path: Path) -> None:
        half_bad = Conversation(key(2), "2" * 32, None, 0, tuple(exchange(8, "\ud800")))
        async with opened(path) as store:
            async with stalled(store) as go_on:
                writes = [
                    asyncio.create_task(work)
                    for work in (
                        write(store, 1),
                        store.mark_read(OTHER, 1),
                        store.restore(half_bad),
                        write(store, 3),
                    )
                ]
                await asyncio.sleep(0)
                go_on.set()
                results = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(result) for result in results] == [
                type(None),
                NotFound,
                UnicodeEncodeError,
                type(None),
            ]
            assert await written(store) == [1, 3]

    async def test_a_group_that_cannot_be_committed_is_tried_one_by_one(self, path: Path) -> None:
        refusals = iter([True])

        async with opened(path) as store:
            assert store._writer is not None
            async with stalled(store) as go_on:
                hooked = asyncio.create_task(
                    store._writer.call(
                        lambda connection: connection.set_commit_hook(lambda: next(refusals, False))
                    )
                )
                writes = [asyncio.create_task(write(store, n)) for n in range(5)]
                await asyncio.sleep(0)
                go_on.set()
                await asyncio.gather(*writes, hooked, return_exceptions=True)
            assert next(refusals, None) is None
            assert await written(store) == list(range(5))

    async def test_a_full_queue_refuses_at_once(self, path: Path) -> None:
        async with opened(path) as store:
            async with stalled(store) as go_on:
                writes = [asyncio.create_task(write(store, n)) for n in range(1024)]
                await asyncio.sleep(0)
                with pytest.raises(StoreUnavailable, match="too much is waiting"):
                    await write(store, 5000)
                go_on.set()
                results = await asyncio.gather(*writes, return_exceptions=True)
            # A slow machine may not come to all of them in time.
            assert await written(store) == [n for n, told in enumerate(results) if told is None]

    @pytest.mark.heavy
    async def test_a_write_that_waited_too_long_is_not_done_later(self, path: Path) -> None:
        async with opened(path) as store:
            async with stalled(store):
                began = time.perf_counter()
                with pytest.raises(StoreUnavailable):
                    await write(store, 1)
                assert time.perf_counter() - began < 3 * WAIT_S
            await write(store, 2)
            assert await written(store) == [2]

    async def test_a_cancelled_callers_write_still_happens(self, path: Path) -> None:
        async with opened(path) as store:
            async with stalled(store):
                cancelled = asyncio.create_task(write(store, 1))
                await asyncio.sleep(0)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
            await write(store, 2)
            assert await written(store) == [1, 2]
