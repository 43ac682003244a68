"""A scripted model and a recording client for tests of the engine."""

import asyncio
from collections.abc import Callable, Sequence

from gateway.errors import GatewayError, UpstreamUnavailable
from gateway.events import ModelEvent, TurnEvent, TurnStarted
from gateway.grammar import Grammar
from gateway.messages import MessageStatus, Price, Prompt, PromptMessage
from gateway.ports.turns import ModelStream
from gateway.turn.engine import KeptReply, Turn
from gateway.turn.plan import Agent, TurnPlan
from gateway.turn.prompt import Exchange
from gateway.turn.seats import unbroken
from gateway.turn.tally import TurnTally
from gateway.turn.watch import NEVER, Watch

Step = list[ModelEvent] | GatewayError | float | asyncio.Event


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something that happens soon, however busy the machine is."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class ScriptedStream:
    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(steps)
        self.closed = False

    async def read(self) -> list[ModelEvent]:
        while True:
            step = self._steps.pop(0)
            if isinstance(step, GatewayError):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            else:
                return list(step)

    async def close(self) -> None:
        self.closed = True


class ScriptedModel:
    """A model and its only place at once; `retries` says how often it lets itself be asked again.

    `ends` are the ends of its calls, `places` the `last_resort`s with which it was asked for one.
    """

    provider = "openai"
    model = "m"

    def __init__(
        self,
        *calls: Sequence[Step] | GatewayError,
        name: str = "main",
        first_token_s: float = 5,
        idle_s: float = 5,
        total_s: float = 5,
        context_tokens: int | None = None,
        retries: int = 0,
        full: bool = False,
    ) -> None:
        self.full = full
        self.name = name
        self.first_token_s = first_token_s
        self.idle_s = idle_s
        self.total_s = total_s
        self.context_tokens = context_tokens
        self.output_tokens: int | None = None
        self.price: Price | None = None
        self.target = name
        self.retries = retries
        self.places: list[bool] = []
        self.ends: list[GatewayError | None] = []
        self.began_calls = 0
        self.prompts: list[Prompt] = []
        self.streams: list[ScriptedStream] = []
        self._calls = list(calls)

    async def place(self, *, last_resort: bool = True) -> "ScriptedModel":
        self.places.append(last_resort)
        if self.full:
            raise UpstreamUnavailable(retry_after=1)
        return self

    def began(self) -> None:
        self.began_calls += 1

    def end(self, error: GatewayError | None) -> None:
        self.ends.append(error)

    async def again(self, error: GatewayError) -> "ScriptedModel | None":
        if not error.elsewhere or self.retries == 0:
            return None
        self.retries -= 1
        return self

    async def send(
        self, prompt: Prompt, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> ModelStream:
        self.prompts.append(prompt)
        call = self._calls.pop(0)
        if isinstance(call, GatewayError):
            raise call
        stream = ScriptedStream(call)
        self.streams.append(stream)
        return stream


class RecordingClient:
    def __init__(
        self, *, one_shot: bool = False, stall: bool = False, stall_at_end: bool = False
    ) -> None:
        self.opened = False
        self.terminal_sent = False
        self.gone = False
        self.one_shot = one_shot
        self.events: list[TurnEvent] = []
        self.refused: GatewayError | None = None
        self.ended = 0
        self.keep_alives = 0
        self.watch: Watch
        self._stall = stall
        self._stall_at_end = stall_at_end
        self._grammar = Grammar()

    async def begin(self, model: str = "") -> None:
        if not self.events:
            self._take([TurnStarted(model)])
            self.opened = not self.one_shot

    async def send(self, events: Sequence[TurnEvent]) -> None:
        self._take(events)
        if self._stall:
            await self._never_taken()

    async def finish(self, events: Sequence[TurnEvent]) -> None:
        await self.begin()
        self._take(events)
        self.opened = self.terminal_sent = True
        if self._stall_at_end:
            await self._never_taken()
        self.ended += 1

    async def refuse(self, error: GatewayError) -> None:
        self.refused = error
        if self._stall_at_end:
            await self._never_taken()
        self.ended += 1

    async def keep_alive(self) -> None:
        self.keep_alives += 1
        await self.begin()

    async def _never_taken(self) -> None:
        self.watch.sending_since = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(60)
        finally:
            self.watch.sending_since = NEVER

    def _take(self, events: Sequence[TurnEvent]) -> None:
        for event in events:
            self._grammar.advance(event)
            self.events.append(event)


class Play:
    """One turn over scripted models; `kept` is what went into history."""

    def __init__(
        self,
        *models: ScriptedModel,
        client: RecordingClient | None = None,
        past: Sequence[Exchange] = (),
        text: str = "hello",
        turn_s: float = 5,
        send_s: float = 5,
        keep_alive_s: float = 5,
        output_bytes: int = 1000,
        store_error: GatewayError | None = None,
        store_gate: asyncio.Event | None = None,
        retry_within_s: float = 10,
    ) -> None:
        self.client = client or RecordingClient()
        self.tally = TurnTally("widget", "1.1", 0.0)
        self.kept: list[tuple[str, MessageStatus]] = []
        self.replies: list[KeptReply] = []
        self.released_before_end: bool | None = None
        self._models = models
        self._past = past
        self._text = text
        self._clocks = (turn_s, send_s, keep_alive_s)
        self._output_bytes = output_bytes
        self._store_error = store_error
        self._store_gate = store_gate
        self._retry_within_s = retry_within_s

    async def run(self) -> "Play":
        agent = Agent(
            name="default",
            models=self._models,
            system_prompt="be brief",
            history_messages=30,
            max_tokens=None,
            temperature=None,
            stop=(),
            turn_s=self._clocks[0],
            finish_when_gone=False,
            refusal="no",
        )
        plan = TurnPlan(
            agent,
            self._past,
            (PromptMessage("user", self._text),),
            (),
            self._output_bytes,
            self._retry_within_s,
        )
        watch = self.client.watch = Watch(
            turn_s=self._clocks[0],
            send_s=self._clocks[1],
            keep_alive_s=self._clocks[2],
            keep_alive=self.client.keep_alive,
        )
        self.tally.began = asyncio.get_running_loop().time()
        self.watch = watch
        turn = Turn(plan, self.client, watch, self.tally, keep=self._keep, release=self._release)
        await turn.run()
        return self

    async def _keep(self, reply: KeptReply) -> None:
        await unbroken(self._stored(reply))

    async def _stored(self, reply: KeptReply) -> None:
        if self._store_error is not None:
            raise self._store_error
        if self._store_gate is not None:
            await self._store_gate.wait()
        self.kept.append((reply.text, reply.status))
        self.replies.append(reply)

    async def _release(self) -> None:
        if self.released_before_end is None:
            self.released_before_end = self.client.ended == 0
