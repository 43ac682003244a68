"""A configured upstream: its servers behind one name (`ports.Model`).

`breaker.py` says which server gets a call and which is left out. This module waits where all are
full, keeps the clock, and tells the metrics.

State is one worker's own. What a worker sees of a server is what its own calls meet; a shared
state would put a store between a turn and its model, and a store that fails would then take the
models with it. The price: with N workers a dead server is found out N times (five failed calls
each, which retries hide), and `max_in_flight` holds per worker and per server.

Bounds: a call waits for a place for half of `connect_s` at most, and connecting takes what is left
of it: no server is blamed for a connection that had no time. Those who wait are turns, so there are
at most `turns_in_flight` of them; first come, first served.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from gateway.errors import (
    Cancelled,
    GatewayError,
    UpstreamDenied,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from gateway.messages import Price, Prompt
from gateway.ports.turns import ModelStream
from gateway.transport.breaker import Balancer, Place, Target

_log: Final = structlog.get_logger("gateway.balance")

# The same server again: not at once, and not all together.
_BACKOFF_S: Final = (0.05, 0.15)
# A turn does not wait for longer than this for a server that asked for a pause.
_PATIENCE_S: Final = 1.0


class Server(Protocol):
    """One model server."""

    async def call(
        self, prompt: Prompt, *, headers: tuple[tuple[str, str], ...], connect_s: float
    ) -> ModelStream:
        """Sends the prompt and waits for a good answer's head. Raises `GatewayError`."""
        ...


class UpstreamRecorder(Protocol):
    """Where calls leave their metrics. The names are those of the configuration."""

    def call_began(self, upstream: str, target: str, *, retry: bool) -> None:
        """A call has its place."""
        ...

    def call_ended(self, upstream: str, target: str, error: GatewayError | None) -> None:
        """A call is over, well if there is no error."""
        ...

    def ejected(self, upstream: str, target: str, *, out: bool) -> None:
        """A target was taken out of use, or is back."""
        ...

    def no_place(self, upstream: str) -> None:
        """A call found no place in time."""
        ...

    def retry_refused(self, upstream: str) -> None:
        """A retry was left out because the budget was spent."""
        ...


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What an upstream is called and bounded by; see `ports.Model`."""

    name: str
    provider: str
    model: str
    connect_s: float
    first_token_s: float
    idle_s: float
    total_s: float
    context_tokens: int | None = None
    output_tokens: int | None = None
    price: Price | None = None


class BalancedModel:
    """An upstream with one or more servers (`ports.Model`)."""

    def __init__(
        self,
        facts: ModelFacts,
        servers: Sequence[tuple[Target, Server]],
        *,
        max_in_flight: int,
        recorder: UpstreamRecorder,
    ) -> None:
        self.name = facts.name
        self.provider = facts.provider
        self.model = facts.model
        self.context_tokens = facts.context_tokens
        self.output_tokens = facts.output_tokens
        self.first_token_s = facts.first_token_s
        self.idle_s = facts.idle_s
        self.total_s = facts.total_s
        self.price = facts.price
        self.balancer = Balancer([target for target, _ in servers], max_in_flight=max_in_flight)
        self._connect_s = facts.connect_s
        self._servers = {target.name: server for target, server in servers}
        self._recorder = recorder
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def place(self, *, last_resort: bool = True) -> "Call":
        """A place for one call; see `ports.Model`."""
        if not last_resort and self.balancer.none_ready(self._loop.time()):
            raise UpstreamUnavailable("all targets are ejected, or asked for a rest")
        return await self._take((), retry=False)

    async def place_again(self, error: GatewayError, tried: tuple[str, ...]) -> "Call | None":
        """A place for another try after `error`; None if there should be none."""
        if not error.elsewhere:
            return None
        same = not isinstance(error, UpstreamDenied)
        backoff_s = random.uniform(*_BACKOFF_S)  # noqa: S311 - spreads, hides nothing
        wait = self.balancer.next_try(
            self._loop.time(), tried=tried, same=same, backoff_s=backoff_s
        )
        if wait is None or wait > _PATIENCE_S:
            return None
        if not self.balancer.reserve_retry():
            self._recorder.retry_refused(self.name)
            return None
        taken: Call | None = None
        try:
            await asyncio.sleep(wait)
            taken = await self._take(tried, retry=True)
        except UpstreamUnavailable:
            return None
        finally:
            if taken is None:
                self.balancer.return_retry()
        return taken

    async def _take(self, tried: tuple[str, ...], *, retry: bool) -> "Call":
        began = self._loop.time()
        taken = None if self._waiting else self.balancer.take(began, tried=tried, retry=retry)
        if taken is None:
            taken = await self._wait(tried, retry=retry)
        self._recorder.call_began(self.name, taken.target.name, retry=retry)
        left_s = max(self._connect_s / 2, self._connect_s - (self._loop.time() - began))
        server = self._servers[taken.target.name]
        return Call(self, server, taken, (*tried, taken.target.name), left_s)

    async def _wait(self, tried: tuple[str, ...], *, retry: bool) -> Place:
        """Queues for a place. Raises `UpstreamUnavailable` when none came free in time."""
        by = self._loop.time() + self._connect_s / 2
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            while True:
                async with asyncio.timeout_at(by):
                    await turn
                taken = self.balancer.take(self._loop.time(), tried=tried, retry=retry)
                if taken is not None:
                    return taken
                turn = self._loop.create_future()
                self._waiting.appendleft(turn)
        except TimeoutError:
            self._recorder.no_place(self.name)
            raise UpstreamUnavailable("all targets are full", retry_after=1) from None
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._wake()  # perhaps there is room for the next one too

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def began(self, place: Place) -> None:
        """The call's model has begun to generate."""
        was_out = place.target.opened_at is not None
        self.balancer.began(place, self._loop.time())
        self._note_return(place.target, was_out=was_out)

    def ended(self, place: Place, error: GatewayError | None) -> None:
        """The call is over."""
        target, was_out = place.target, place.target.opened_at is not None
        failed = _failed(error)
        wait = error.retry_after if isinstance(error, UpstreamError) else None
        ejected = self.balancer.ended(place, self._loop.time(), failed=failed, wait=wait)
        self._recorder.call_ended(self.name, target.name, error)
        if ejected:
            self._recorder.ejected(self.name, target.name, out=True)
            _log.warning(
                "upstream_ejected",
                upstream=self.name,
                target=target.name,
                kind=error and error.kind,
                why=error and str(error),
                failures=target.failures,
                seconds=round(target.open_until - self._loop.time()),
            )
        self._note_return(target, was_out=was_out)
        self._wake()

    def _note_return(self, target: Target, *, was_out: bool) -> None:
        if was_out and target.opened_at is None:
            self._recorder.ejected(self.name, target.name, out=False)
            _log.info("upstream_back", upstream=self.name, target=target.name)


class Call:
    """One call's place at a server (`ports.ModelCall`)."""

    def __init__(
        self,
        model: BalancedModel,
        server: Server,
        place: Place,
        tried: tuple[str, ...],
        connect_s: float,
    ) -> None:
        self.target = place.target.name
        self._model = model
        self._server = server
        self._place = place
        self._tried = tried
        self._connect_s = connect_s
        self._over = False

    async def send(
        self, prompt: Prompt, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> ModelStream:
        """Sends the prompt and waits for a good answer's head; see `ports.ModelCall`."""
        return await self._server.call(prompt, headers=headers, connect_s=self._connect_s)

    def began(self) -> None:
        """The model has begun to generate."""
        self._model.began(self._place)

    def end(self, error: GatewayError | None) -> None:
        """Gives the place back; once."""
        if not self._over:
            self._over = True
            self._model.ended(self._place, error)

    async def again(self, error: GatewayError) -> "Call | None":
        """A place for another try of this upstream after `error`, None if there is to be none."""
        return await self._model.place_again(error, self._tried)


def _failed(error: GatewayError | None) -> bool | None:
    """Whether a call's end speaks against its server; None where it says nothing.

    A request that is refused for its own sake, a limit, or a client that left say nothing.
    """
    if error is None:
        return False
    if isinstance(error, UpstreamRateLimited | Cancelled):
        return None
    return True if error.elsewhere else None
