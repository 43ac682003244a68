import asyncio
import time
from collections.abc import Awaitable

from gateway.turn.watch import Watch


async def test_a_keep_alive_that_is_stopped_before_it_begins_leaves_nothing_behind() -> None:
    calls: list[Awaitable[None]] = []

    def keep_alive() -> Awaitable[None]:
        calls.append(asyncio.sleep(0))
        return calls[-1]

    watch = Watch(turn_s=60, send_s=60, keep_alive_s=0.05, keep_alive=keep_alive)
    time.sleep(0.1)  # the timer is due in the next pass of the loop
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    watch.stop()
    await asyncio.sleep(0.01)
    assert calls == []
