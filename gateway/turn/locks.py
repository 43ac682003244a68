"""One turn at a time on a conversation, within this process; `seats.py` adds the others.

A lock belongs to whoever holds it and is handed straight to the next in line, first come first
served, so a newcomer never overtakes. At most `waiters` wait for one conversation. An entry
exists only while its conversation is held.

A turn whose client has left is about to end, and the client may be back before it has: whoever
finds such a turn waits up to `LEAVING_S` for its end, also where nobody waits for a running one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final

from gateway.errors import ConversationBusy
from gateway.messages import ConversationKey

LEAVING_S: Final = 2.0

Leaving = Callable[[], bool]


def stays() -> bool:
    """Nobody is leaving."""
    return False


class ConversationLocks:
    """The locks of one event loop; `len()` is the number of conversations held now."""

    def __init__(self, *, waiters: int = 16) -> None:
        self._lines = _Lines(waiters)

    def __len__(self) -> int:
        return len(self._lines)

    def hold(
        self, key: ConversationKey, wait_s: float = 0.0, *, leaving: Leaving = stays
    ) -> "Hold":
        """A hold to enter with `async with`; if busy it waits in line for at most `wait_s`.

        `leaving` says, once it is held, whether its client has left and it will end for that.
        Entering raises `ConversationBusy`: at once if `wait_s` is 0 or the line is full, else
        when the time is up.
        """
        return Hold(self._lines, key, wait_s, leaving)


class _Line:
    """Those who wait for a conversation, and whether its holder is leaving."""

    __slots__ = ("leaving", "waiting")

    def __init__(self, leaving: Leaving) -> None:
        self.leaving = leaving
        self.waiting: deque[tuple[asyncio.Future[bool], Leaving]] = deque()


class _Lines:
    """Who waits for which conversation; a conversation without an entry is free."""

    def __init__(self, waiters: int) -> None:
        self._waiters = waiters
        self._lines: dict[ConversationKey, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    async def acquire(self, key: ConversationKey, wait_s: float, leaving: Leaving) -> None:
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line(leaving)
            return
        if line.leaving():
            wait_s = max(wait_s, LEAVING_S)
        if wait_s <= 0 or len(line.waiting) >= self._waiters:
            raise ConversationBusy("a turn is running on this conversation")
        if not await self._wait(key, line, wait_s, leaving):
            raise ConversationBusy("the turns before this one took too long")

    async def _wait(
        self, key: ConversationKey, line: _Line, wait_s: float, leaving: Leaving
    ) -> bool:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        place = (turn, leaving)
        line.waiting.append(place)
        timer = loop.call_later(wait_s, _give_up, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            # Handed over and cancelled in the same pass of the loop: the next one gets it.
            if not turn.cancelled() and turn.result():
                self.pass_on(key)
            raise
        finally:
            timer.cancel()
            with suppress(ValueError):
                line.waiting.remove(place)

    def pass_on(self, key: ConversationKey) -> None:
        line = self._lines[key]
        while line.waiting:
            turn, leaving = line.waiting.popleft()
            if not turn.done():
                line.leaving = leaving
                turn.set_result(True)
                return
        del self._lines[key]


def _give_up(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)


class Hold:
    """One use of a lock: held from `async with` until `release` or the end of the block."""

    __slots__ = ("_held", "_key", "_leaving", "_lines", "_wait_s")

    def __init__(
        self, lines: _Lines, key: ConversationKey, wait_s: float, leaving: Leaving
    ) -> None:
        self._lines = lines
        self._key = key
        self._wait_s = wait_s
        self._leaving = leaving
        self._held = False

    @property
    def held(self) -> bool:
        """Whether the conversation is this hold's now."""
        return self._held

    def release(self) -> None:
        """Lets the next turn begin; calling it again, or before entering, does nothing."""
        if self._held:
            self._held = False
            self._lines.pass_on(self._key)

    async def __aenter__(self) -> "Hold":
        if self._held:
            raise RuntimeError("the hold is entered already")
        await self._lines.acquire(self._key, self._wait_s, self._leaving)
        self._held = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
