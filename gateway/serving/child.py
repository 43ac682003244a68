"""One worker process as the supervisor sees it: started, spoken to, watched and ended."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from gateway.serving.orders import BEAT_S, Orders, heard, spoken
from gateway.telemetry.scoreboard import Scoreboard, shared_file
from gateway.telemetry.supervision import WorkerFacts, WorkerState

_MODULE: Final = "gateway.serving.worker"
_ROOT: Final = str(Path(__file__).resolve().parents[2])
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAG_WINDOW_S: Final = 15.0
_LAST_WORDS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor waits for a worker, in seconds.

    `start_s`: until it listens. `held_up_s`: an event loop that is held up longer does not count as
    ready. `wedged_s`: one that gives no sign of life for so long is killed. `kill_s`: what it may
    take to end after the time that it was given.
    """

    start_s: float = 30.0
    held_up_s: float = 1.0
    wedged_s: float = 15.0
    kill_s: float = 5.0


class Child:
    """One worker process. `woken` is called when it says something or ends.

    `has_to_leave` is for the owner: another one is to take its place.
    """

    def __init__(
        self, slot: int, descriptors: tuple[int, ...], patience: Patience, woken: Callable[[], None]
    ) -> None:
        self.slot: Final = slot
        self.state: WorkerState = "starting"
        self._started: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.has_to_leave = False
        self.wedged = False
        self._ordered = False
        self._patience = patience
        self._woken = woken
        self._process, self._channel, self.board = _spawn(descriptors)
        self._talk = asyncio.create_task(self._hear())
        self._writer: asyncio.StreamWriter | None = None
        self._unsent = b""
        self._ends_at = monotonic() + patience.start_s
        self._died_at: float | None = None
        self._lag = _Lag()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def facts(self) -> WorkerFacts:
        """What there is to tell of it."""
        return WorkerFacts(self.slot, self.state, self.pid, self._lag.worst)

    @property
    def serves(self) -> bool:
        """Whether it listens, and its event loop runs."""
        return self.state == "listening" and self._lag.now <= self._patience.held_up_s

    @property
    def failure(self) -> str | None:
        """Why it never listened; None if it did, or may yet."""
        return self._started.result() if self._started.done() else None

    async def started(self) -> str | None:
        """Waits until it listens (None), or has failed to (why)."""
        await asyncio.wait([self._started])  # whoever waits may be cancelled, and this must not
        return self._started.result()

    def give(self, orders: Orders) -> None:
        """Sends its orders."""
        self._ordered = True
        self._send(orders.encoded())

    def stop(self, notice_s: float, drain_s: float) -> None:
        """Tells it to end with the gateway: to be killed when the time is over."""
        self._send(spoken("stop", notice_s=float(notice_s), drain_s=float(drain_s)))
        self._leave(notice_s + drain_s)

    def retire(self, drain_s: float) -> None:
        """Tells it to end because another has taken its place."""
        self._send(spoken("retire", drain_s=float(drain_s)))
        self._leave(drain_s)

    def hurry(self) -> None:
        """Tells it to end its turns now."""
        self._send(spoken("hurry"))
        self._leave(0)

    def look(self, now: float, tick_s: float) -> None:
        """Kills it if it is wedged or overdue; `now` on the monotonic clock."""
        self._lag.look(now, self.board.beat, tick_s)
        if self.state != "starting" and self._lag.silent_s > self._patience.wedged_s:
            self.wedged = True
            self.kill()
        elif self.state != "listening" and now > self._ends_at:
            self.kill()

    def ended(self) -> int | None:
        """The exit status, negative for a signal; None while it runs or may still be heard."""
        status = self._process.poll()
        if status is None or self._talk.done():
            return status
        self._died_at = self._died_at or monotonic()
        return status if monotonic() - self._died_at > _LAST_WORDS_S else None

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()

    def close(self, why: str) -> None:
        """Lets go of what is held for it; it has ended, and `why` if it never listened."""
        self._talk.cancel()
        self._settle(why)

    def _leave(self, within_s: float) -> None:
        if not self._ordered:
            self.kill()  # it has done nothing yet
        limit = monotonic() + within_s + self._patience.kill_s
        self._ends_at = min(self._ends_at, limit) if self.state == "leaving" else limit
        self.state = "leaving"

    async def _hear(self) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        self._send(b"")
        try:
            while (word := await heard(reader)) is not None:
                self._take(word)
                self._woken()
        finally:
            self._woken()
            self._writer.transport.abort()
            with suppress(OSError):  # a killed worker's end, which is looked at elsewhere
                await self._writer.wait_closed()

    def _take(self, word: dict[str, object]) -> None:
        match word:
            case {"word": "listening"} if self.state == "starting":
                self.state = "listening"
                self._settle(None)
            case {"word": "failed", "why": str(why)}:
                self._settle(why)
            case {"word": "leaving"}:
                self.has_to_leave = True

    def _settle(self, why: str | None) -> None:
        if not self._started.done():
            self._started.set_result(why)

    def _send(self, data: bytes) -> None:
        self._unsent += data
        if self._writer is not None and self._unsent:
            self._writer.write(self._unsent)
            self._unsent = b""


class _Lag:
    """How late a worker's signs of life come."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silent_s = 0.0
        self._beat = 0.0
        self._window = [0.0, 0.0]  # the worst of this window, and of the one before
        self._began = monotonic()

    @property
    def worst(self) -> float:
        """The longest of the last one to two windows."""
        return max(self._window)

    def look(self, now: float, beat: float, tick_s: float) -> None:
        """Takes in the last sign; `tick_s` since the look before, if this process was not held
        up itself."""
        if not beat:
            return
        self.silent_s = self.silent_s + tick_s if beat == self._beat else 0.0
        self._beat = beat
        self.now = max(0.0, now - beat - BEAT_S)
        if now - self._began > _LAG_WINDOW_S:
            self._began = now
            self._window = [0.0, self._window[0]]
        self._window[0] = max(self._window[0], self.now)


def _spawn(
    descriptors: tuple[int, ...],
) -> tuple[subprocess.Popen[bytes], socket.socket, Scoreboard]:
    """A new worker process, the socket to it, and its scoreboard. Raises `OSError`."""
    ours, theirs = socket.socketpair()
    memory = shared_file()
    # They stay blocked in the new process until it has its own handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        ours.setblocking(False)
        process = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-m", _MODULE, str(theirs.fileno()), str(memory)],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), memory, *descriptors),
            env={**os.environ, "PYTHONPATH": _path()},
        )
        return process, ours, Scoreboard(memory)
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        os.close(memory)


def _path() -> str:
    """The worker finds this very package, wherever it was started from."""
    return os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
