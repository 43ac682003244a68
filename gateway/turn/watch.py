"""The clocks of one turn, all behind one timer.

A clock is a number that the turn's code writes (a deadline, or the time of the last read); the
timer looks at all of them a few times per shortest interval. So a token moves a clock by one
assignment, and no wait of a turn is without one. When a clock runs out the watch notes the fault
and cancels the turn's task, which finds the reason in `fault`.

Times are the event loop's, in seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.errors import (
    Cancelled,
    Deadline,
    FirstTokenTimeout,
    GatewayError,
    IdleTimeout,
    TotalTimeout,
    TurnStopped,
    UpstreamTimeout,
)

NEVER: Final = float("inf")
_LONGEST_TICK_S: Final = 1.0


class ClientStalled(Cancelled):
    """The client did not take what was sent for `send_s`; nothing more can be told to it."""


class Watch:
    """Watches one turn's task until `stop`.

    `read_at` and `wrote_at` are the times of the last read from the model and the last write to
    the client; `sending_since` is set while a write waits for the client.
    """

    def __init__(
        self,
        *,
        turn_s: float,
        send_s: float,
        keep_alive_s: float,
        keep_alive: Callable[[], Awaitable[None]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a watch starts inside the task that it watches")
        now = self._loop.time()
        self.fault: GatewayError | None = None
        self.read_at = now
        self.wrote_at = now
        self.sending_since = NEVER
        self._task = task
        self._turn_by = now + turn_s
        self._send_s = send_s
        self._keep_alive_s = keep_alive_s
        self._keep_alive = keep_alive
        self._first_token_by = NEVER
        self._total_by = NEVER
        self._idle_s = NEVER
        self._closing = False
        self._tick_s = min(_LONGEST_TICK_S, turn_s / 4, send_s / 4, keep_alive_s / 4)
        self._running_keep_alive: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    def model_called(self, *, first_token_s: float, idle_s: float, total_s: float) -> None:
        """Starts the clocks of one model call."""
        now = self._loop.time()
        self._first_token_by = now + first_token_s
        self._total_by = now + total_s
        self._idle_s = idle_s
        tick_s = min(first_token_s / 4, idle_s / 4, total_s / 4)
        if tick_s < self._tick_s:
            self._tick_s = tick_s
            self._timer.cancel()
            self._timer = self._loop.call_later(tick_s, self._tick)

    def token_came(self) -> None:
        """The model generated something: from now on silence and the total count."""
        self._first_token_by = NEVER

    def model_ended(self) -> None:
        """Stops the clocks of the model call."""
        self._first_token_by = self._total_by = self._idle_s = NEVER

    def close_turn(self) -> None:
        """The turn's result is known: from now on only the client's slowness can end it."""
        self.model_ended()
        self._turn_by = NEVER
        self._closing = True

    def stop_turn(self, fault: GatewayError) -> None:
        """Ends the turn from outside, unless its result is known already."""
        if self._closing:
            return
        if self.fault is None:
            self._cancel(fault)
        elif isinstance(self.fault, UpstreamTimeout) and isinstance(fault, TurnStopped):
            self.fault = fault  # after the end of a call alone the turn would try another one

    def stop(self) -> None:
        """Stops every clock."""
        self._timer.cancel()
        if self._running_keep_alive is not None:
            self._running_keep_alive.cancel()

    def _cancel(self, fault: GatewayError) -> None:
        self.fault = fault
        self._task.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self.sending_since >= self._send_s:
            self._cancel(ClientStalled(f"the client took nothing for {self._send_s:g} s"))
            return
        fault = self._run_out(now)
        if fault is not None:
            self.stop_turn(fault)
        elif now - self.wrote_at >= self._keep_alive_s and self.sending_since == NEVER:
            self.wrote_at = now
            self._running_keep_alive = self._loop.create_task(_run(self._keep_alive))
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    def _run_out(self, now: float) -> GatewayError | None:
        if now >= self._turn_by:
            return Deadline("the turn passed turn_s")
        if self.sending_since != NEVER:
            return None  # a slow reader holds the reads up; that is not the model's silence
        if now >= self._first_token_by:
            return FirstTokenTimeout("nothing generated within first_token_s")
        # A model that thinks, loads or queues first may be silent: that is the clock above.
        if self._first_token_by == NEVER and now - self.read_at >= self._idle_s:
            return IdleTimeout("silent for idle_s")
        if now >= self._total_by:
            return TotalTimeout("the call passed total_s")
        return None


async def _run(keep_alive: Callable[[], Awaitable[None]]) -> None:
    # Called here and not before: a task may be cancelled before it begins.
    await keep_alive()
