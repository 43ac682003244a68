"""Plays parts on as many processes as asked for, and hands on what came of each."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from multiprocessing import get_context
from typing import Protocol

from gateway.certify.recordings import Recording
from gateway.certify.sockets import GatewayMaker, SocketPart, play_over_sockets
from gateway.certify.sweep import Part, Sweep, Tally, silence
from gateway.certify.wires import WIRES
from gateway.serving.loop import loop_factory

AnyPart = Part | SocketPart


class Player(Protocol):
    """What plays parts: `played`, or something like it."""

    def __call__(
        self, parts: Sequence[AnyPart], /, *, dialect: str | None, make: GatewayMaker, jobs: int
    ) -> Iterator[list[Tally]]:
        """The tallies of each part."""
        ...


def played(
    parts: Sequence[AnyPart], *, dialect: str | None, make: GatewayMaker, jobs: int
) -> Iterator[list[Tally]]:
    """The tallies of each part, in whichever order they are done.

    `make` builds the gateway of a part over sockets; with more than one job it has to be a
    function of a module.
    """
    if jobs == 1:
        for part in parts:
            yield _play(part, dialect, make)
        return
    # A process that is forked from one with threads may never run; a fresh one costs half a second.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin)
    try:
        futures = [pool.submit(_play, part, dialect, make) for part in parts]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    # Ctrl-C reaches the whole group: nothing is to be saved, and the parent says what happened.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _play(part: AnyPart, dialect: str | None, make: GatewayMaker) -> list[Tally]:
    with silence(), asyncio.Runner(loop_factory=loop_factory()) as runner:
        if isinstance(part, SocketPart):
            return [runner.run(play_over_sockets(part, make))]
        return runner.run(_sweep(part.recording, dialect).play(range(part.begin, part.end)))


@lru_cache(maxsize=2)
def _sweep(recording: Recording, dialect: str | None) -> Sweep:
    wires = [wire for wire in WIRES if dialect in (None, wire.dialect.name)]
    return Sweep(recording, wires)
