import asyncio
import time
from collections.abc import Awaitable

import pytest

from gateway.errors import Drained, FirstTokenTimeout
from gateway.events import ModelFinished, TextDelta
from gateway.turn.watch import Watch
from tests.turn.playbook import Play, ScriptedModel


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


@pytest.mark.parametrize("call_first", [True, False])
async def test_a_turn_that_is_to_end_tries_no_other_model_though_a_calls_clock_runs_out_too(
    call_first: bool,
) -> None:
    second = ScriptedModel([[TextDelta("b"), ModelFinished("stop", None)]])
    play = Play(ScriptedModel([30.0]), second)
    running = asyncio.create_task(play.run())
    await asyncio.sleep(0.05)
    faults = [FirstTokenTimeout(), Drained()]
    for fault in faults if call_first else reversed(faults):
        play.watch.stop_turn(fault)
    await running
    assert (play.tally.outcome, second.prompts) == ("drained", [])
