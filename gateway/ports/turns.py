"""What a turn talks to while it runs: a model, and the client's side."""

from collections.abc import Sequence
from typing import Protocol

from gateway.errors import GatewayError
from gateway.events import ModelEvent, TurnEvent
from gateway.messages import (
    Price,
    Prompt,
)


class ModelStream(Protocol):
    """A running model call."""

    async def read(self) -> list[ModelEvent]:
        """The events of the next read, perhaps none; the last is `ModelFinished`.

        Raises `UpstreamError` subclasses.
        """
        ...

    async def close(self) -> None:
        """Ends the call; the upstream sees its connection close if the stream was not over."""
        ...


class ModelCall(Protocol):
    """A place for one call at one of a model's servers, held until `end`."""

    target: str

    async def send(
        self, prompt: Prompt, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> ModelStream:
        """Sends the prompt and waits for a good answer's head; `headers` go along.

        Raises `GatewayError`.
        """
        ...

    def began(self) -> None:
        """The model has begun to generate."""
        ...

    def end(self, error: GatewayError | None) -> None:
        """The call is over, well if there is no error; `Cancelled` blames nobody."""
        ...

    async def again(self, error: GatewayError) -> "ModelCall | None":
        """A place for another try after `error`; None if this model is not to be asked again."""
        ...


class Model(Protocol):
    """A configured upstream, ready to call. Times are in seconds, sizes in tokens."""

    name: str
    provider: str
    model: str
    context_tokens: int | None
    output_tokens: int | None
    first_token_s: float
    idle_s: float
    total_s: float
    price: Price | None

    async def place(self, *, last_resort: bool = True) -> ModelCall:
        """A place for one call. Raises `UpstreamUnavailable` if none comes free in time.

        Without `last_resort` also if every server is out of use for its failures, or asked for a
        rest: there is another upstream to go to.
        """
        ...


class Downstream(Protocol):
    """The client's side of one turn.

    `one_shot` and `opened` tell the engine whether a failure can still be a status,
    `terminal_sent` whether it can still be told at all, `gone` that nobody reads any more.
    """

    one_shot: bool

    @property
    def opened(self) -> bool:
        """Whether anything was sent."""
        ...

    @property
    def terminal_sent(self) -> bool:
        """Whether the terminal record was sent."""
        ...

    @property
    def gone(self) -> bool:
        """Whether the client has gone."""
        ...

    async def begin(self, model: str = "") -> None:
        """Sends the head and the opening record, or only notes them where nothing streams.

        `model` is the one that answers, empty if none does yet.
        """
        ...

    async def send(self, events: Sequence[TurnEvent]) -> None:
        """Encodes the events and hands their records to the server."""
        ...

    async def finish(self, events: Sequence[TurnEvent]) -> None:
        """Sends the last events, the terminal one at their end, and ends the stream."""
        ...

    async def refuse(self, error: GatewayError) -> None:
        """Answers with the dialect's status for the error; only while nothing was sent."""
        ...
