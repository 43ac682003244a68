"""Finds a model that begins to answer: retries, other servers, other upstreams, shorter history.

All of this happens before the first generated token, so no client can see it. A failure that took
long is not followed by another try, which would take as long again: nothing is tried later than
`retry_within_s` after the turn's beginning. What a request itself is to blame for is never tried
again, bar a prompt that is too long, from which history can be left out.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import structlog

from gateway.errors import Cancelled, ContextLength, GatewayError, Internal, UpstreamTimeout
from gateway.events import ModelEvent
from gateway.messages import Prompt
from gateway.ports.turns import Model, ModelCall, ModelStream
from gateway.turn.plan import TurnPlan
from gateway.turn.prompt import Exchange, fit
from gateway.turn.reply import generated
from gateway.turn.tally import RoundTally, TurnTally
from gateway.turn.watch import Watch

_log: Final = structlog.get_logger("gateway.turn")

# A model that counts more tokens than the estimate refuses the prompt: try with less history.
_SHRINK_TRIES: Final = 4


@dataclass(slots=True)
class Running:
    """A call whose model has begun to generate, or has ended well, and its events so far."""

    stream: ModelStream
    call: ModelCall
    entry: RoundTally
    events: list[ModelEvent]


class ModelCalls:
    """The model calls of one turn."""

    def __init__(self, plan: TurnPlan, watch: Watch, tally: TurnTally) -> None:
        self._plan = plan
        self._watch = watch
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._retry_by = self._loop.time() + plan.retry_within_s

    async def begin(self) -> Running:
        """A call that has begun to generate. Raises `GatewayError` if no model does."""
        models = self._plan.agent.models
        for model in models[:-1]:
            try:
                return await self._try_model(model, last_resort=False)
            except GatewayError as error:
                if not error.elsewhere or self._loop.time() > self._retry_by:
                    raise
                self._tally.fallbacks.append(model.name)
        return await self._try_model(models[-1], last_resort=True)

    async def end(self, running: Running, error: BaseException | None) -> None:
        """Ends a call that had begun; `error` is what ended it, None if it ended well."""
        await self._close(running.call, running.entry, running.stream, error)

    async def _try_model(self, model: Model, *, last_resort: bool) -> Running:
        past = self._fitting(model)
        for _ in range(_SHRINK_TRIES):
            try:
                return await self._try_servers(model, past, last_resort=last_resort)
            except ContextLength:
                if not past:
                    raise
                past = past[len(past) // 2 + 1 :]
        return await self._try_servers(model, [], last_resort=last_resort)

    async def _try_servers(
        self, model: Model, past: Sequence[Exchange], *, last_resort: bool
    ) -> Running:
        prompt = self._prompt(model, past)
        call = await model.place(last_resort=last_resort)
        while True:
            try:
                return await self._call(model, call, prompt)
            except GatewayError as error:
                if self._loop.time() > self._retry_by:
                    raise
                again = await call.again(error)
                if again is None:
                    raise
                call = again

    async def _call(self, model: Model, call: ModelCall, prompt: Prompt) -> Running:
        entry = RoundTally(
            model.name,
            model.provider,
            model.model,
            self._loop.time(),
            target=call.target,
            price=model.price,
        )
        self._tally.rounds.append(entry)
        self._watch.model_called(
            first_token_s=model.first_token_s, idle_s=model.idle_s, total_s=model.total_s
        )
        stream: ModelStream | None = None
        try:
            stream = await call.send(prompt, headers=self._plan.headers)
            events: list[ModelEvent] = []
            while not generated(events):
                events += await self._read(stream, entry)
        except BaseException as error:
            await self._close(call, entry, stream, error)
            timeout = self._timeout(error)
            if timeout is None:
                raise
            raise timeout from None
        self._watch.token_came()
        call.began()
        return Running(stream, call, entry, events)

    async def _read(self, stream: ModelStream, entry: RoundTally) -> list[ModelEvent]:
        events = await stream.read()
        now = self._watch.read_at = self._loop.time()
        if entry.first_event is None and events:
            entry.first_event = now
        return events

    async def _close(
        self,
        call: ModelCall,
        entry: RoundTally,
        stream: ModelStream | None,
        error: BaseException | None,
    ) -> None:
        self._watch.model_ended()
        entry.ended = self._loop.time()
        ended = self._meaning(error)
        if ended is not None:
            entry.error, entry.why = ended.kind, str(ended)
        try:
            if stream is not None:
                await stream.close()
        finally:
            call.end(ended)

    def _meaning(self, error: BaseException | None) -> GatewayError | None:
        """What ended a call, in the words of `errors.py`."""
        if error is None or isinstance(error, GatewayError):
            return error
        if isinstance(error, asyncio.CancelledError):
            return self._watch.fault or Cancelled()
        return Internal()

    def _timeout(self, error: BaseException) -> UpstreamTimeout | None:
        """The clock of the call that ran out, if that is all that happened: no end of the turn."""
        fault = self._watch.fault
        if not isinstance(error, asyncio.CancelledError) or not isinstance(fault, UpstreamTimeout):
            return None
        task = asyncio.current_task()
        if task is None or task.cancelling() > 1:
            return None  # the client has gone as well
        task.uncancel()
        self._watch.fault = None
        return fault

    def _fitting(self, model: Model) -> Sequence[Exchange]:
        """As much history as the model takes, by the estimate."""
        plan, agent = self._plan, self._plan.agent
        budget = None
        if model.context_tokens is not None:
            budget = model.context_tokens - (agent.max_tokens or model.output_tokens or 0)
        return fit(agent.system_prompt, plan.past, plan.newest, budget=budget)

    def _prompt(self, model: Model, past: Sequence[Exchange]) -> Prompt:
        agent, newest = self._plan.agent, self._plan.newest
        return Prompt(
            model=model.model,
            system=agent.system_prompt,
            messages=(*chain.from_iterable(past), *newest),
            max_tokens=agent.max_tokens,
            temperature=agent.temperature,
            stop=agent.stop,
            rounds=len(newest) - 1,
        )
