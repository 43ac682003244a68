"""One turn at a time on a conversation, within this process; `seats.py` adds the others.

A lock belongs to whoever holds it and is handed straight to the next in line, first come first
served, so a newcomer never overtakes. At most `waiters` wait for one conversation. An entry
exists only while its conversation is held.
"""

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType

from gateway.errors import ConversationBusy
from gateway.messages import ConversationKey


class ConversationLocks:
    """The locks of one event loop; `len()` is the number of conversations held now."""

    def __init__(self, *, waiters: int = 16) -> None:
        self._lines = _Lines(waiters)

    def __len__(self) -> int:
        return len(self._lines)

    def hold(self, key: ConversationKey, wait_s: float = 0.0) -> "Hold":
        """A hold to enter with `async with`; if busy it waits in line for at most `wait_s`.

        Entering raises `ConversationBusy`: at once if `wait_s` is 0 or the line is full, else
        when the time is up.
        """
        return Hold(self._lines, key, wait_s)


class _Lines:
    """Who waits for which conversation; a conversation without an entry is free."""

    def __init__(self, waiters: int) -> None:
        self._waiters = waiters
        self._lines: dict[ConversationKey, deque[asyncio.Future[bool]]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    async def acquire(self, key: ConversationKey, wait_s: float) -> None:
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = deque()
            return
        if wait_s <= 0 or len(line) >= self._waiters:
            raise ConversationBusy("a turn is running on this conversation")
        if not await self._wait(key, line, wait_s):
            raise ConversationBusy("the turns before this one took too long")

    async def _wait(
        self, key: ConversationKey, line: deque[asyncio.Future[bool]], wait_s: float
    ) -> bool:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        line.append(turn)
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
                line.remove(turn)

    def pass_on(self, key: ConversationKey) -> None:
        line = self._lines[key]
        while line:
            turn = line.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        del self._lines[key]


def _give_up(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)


class Hold:
    """One use of a lock: held from `async with` until `release` or the end of the block."""

    __slots__ = ("_held", "_key", "_lines", "_wait_s")

    def __init__(self, lines: _Lines, key: ConversationKey, wait_s: float) -> None:
        self._lines = lines
        self._key = key
        self._wait_s = wait_s
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
        await self._lines.acquire(self._key, self._wait_s)
        self._held = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
