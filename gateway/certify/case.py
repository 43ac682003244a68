"""One case: a turn of the real engine, encoder and transport, with a tale for its model.

The client is an ASGI server that keeps what it is given. Nothing is imitated between the model's
events and the body's bytes, so what is judged is what serves.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.certify.upstream import Tale, TellingModel
from gateway.certify.wires import Wire
from gateway.messages import MessageStatus, PromptMessage, TurnContext
from gateway.readers import Tokens
from gateway.transport.asgi import Exchange, ExchangeLimits, Message
from gateway.transport.downstream import HttpDownstream
from gateway.turn.engine import KeptReply, Turn
from gateway.turn.plan import Agent, TurnPlan
from gateway.turn.tally import TurnTally
from gateway.turn.watch import Watch

REFUSAL: Final = "I can't help with that."
_CASE_S: Final = 10.0
_TURN_S: Final = 60.0
_LIMITS: Final = ExchangeLimits(body_bytes=1024, body_s=_TURN_S)
_OUTPUT_BYTES: Final = 16 * 1024 * 1024
_SCOPE: Final[Message] = {
    "type": "http",
    "http_version": "1.1",
    "method": "POST",
    "path": "/",
    "query_string": b"",
    "headers": [],
    "client": ("127.0.0.1", 1),
}


@dataclass(slots=True)
class Outcome:
    """What a client, the store and the metrics were given.

    `kept` has what history got, with its status; `counted` the turn's outcome, None where that
    cannot be seen. `fault` is what already went wrong below the wire.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    kept: list[tuple[str, MessageStatus]] = field(default_factory=list)
    counted: str | None = None
    counted_usage: Tokens | None = None
    fault: str | None = None


class Stage:
    """Plays tales to clients of one wire, one after another; lives inside a running loop."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._model = TellingModel()
        self._context = TurnContext(
            turn_id="0d9b6a52-6a3c-4c0e-9f0e-1b7a2c3d4e5f",
            run_id="7f1c2e88-52d4-4f6b-8a51-3e9d0c6b7a12",
            message_id="3c90c3cc-0d44-4b50-8888-8dd25736052a",
            conversation_id="j97ch2kj8xm6rpct8te5w9b1fh6pc7k8",
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            model="recording",
            framing=wire.framing,
            created_at=1_790_000_000,
            refusal=REFUSAL,
            options=wire.options,
        )
        agent = Agent(
            name="certify",
            models=(self._model,),
            system_prompt="",
            history_messages=0,
            max_tokens=None,
            temperature=None,
            stop=(),
            turn_s=_TURN_S,
            finish_when_gone=False,
            refusal=REFUSAL,
        )
        self._plan = TurnPlan(agent, (), (PromptMessage("user", "Hello"),), (), _OUTPUT_BYTES)

    async def play(self, told: Tale) -> Outcome:
        """Runs one turn to its end, or for ten seconds."""
        outcome = Outcome(fault=told.fault)
        client = _Client(outcome)
        self._model.told = told
        exchange = Exchange(_SCOPE, client.receive, client.send, _LIMITS)
        try:
            async with asyncio.timeout(_CASE_S):
                await exchange.run(lambda it: self._serve(it, outcome))
        except TimeoutError:
            outcome.fault = f"the turn did not end within {_CASE_S:g} s"
            return outcome
        if not client.ended:
            outcome.fault = outcome.fault or "the answer was not ended"
        if self._model.open_calls:
            self._model.open_calls = 0
            outcome.fault = outcome.fault or "the upstream call was left open"
        return outcome

    async def _serve(self, exchange: Exchange, outcome: Outcome) -> None:
        await exchange.body()
        dialect = self._wire.dialect
        down = HttpDownstream(
            exchange, dialect.encoder(self._context), dialect.encode_error, alone_s=0.0
        )
        down.watch = watch = Watch(
            turn_s=_TURN_S, send_s=_TURN_S, keep_alive_s=_TURN_S, keep_alive=down.keep_alive
        )
        tally = TurnTally(dialect.name, "1.1", exchange.received_at)

        async def keep(reply: KeptReply) -> None:
            outcome.kept.append((reply.text, reply.status))

        async def release() -> None:
            return

        turn = Turn(self._plan, down, watch, tally, keep=keep, release=release)
        await turn.run()
        outcome.counted = tally.outcome
        if usage := tally.usage:
            outcome.counted_usage = usage.input_tokens, usage.output_tokens


class _Client:
    """The server's side of one ASGI exchange."""

    __slots__ = ("_asked", "_outcome", "ended")

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._asked = False
        self.ended = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.get_running_loop().create_future()  # until the exchange is over
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        outcome = self._outcome
        if self.ended:
            outcome.fault = "something was sent after the answer's end"
        elif message["type"] == "http.response.start":
            if outcome.status:
                outcome.fault = "two answers to one request"
            outcome.status = message["status"]
            outcome.headers = {
                bytes(name).decode("latin-1"): bytes(value).decode("latin-1")
                for name, value in message["headers"]
            }
        else:
            if not outcome.status:
                outcome.fault = "a body without a head"
            if message["body"]:
                outcome.parts.append(message["body"])
            self.ended = not message["more_body"]
