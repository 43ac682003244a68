"""The two sides' wire formats: `Dialect` and `Encoder` for clients, `Upstream` and `Decoder` for
model servers.

All are sans-IO: bytes or values in, values or bytes out, no clock, socket, logger or random
source.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from gateway.errors import GatewayError
from gateway.events import ModelEvent, TurnEvent, TurnFinished
from gateway.messages import (
    ChatRequest,
    DialectOptions,
    Headers,
    Prompt,
    Reply,
    RequestHead,
    TurnContext,
    UpstreamRequest,
)
from gateway.ports.routes import CredentialSource, Route

ConflictRule = Literal["reject", "queue"]


class Encoder(Protocol):
    """Turn events in, body messages out; one per turn.

    Events come in an order that `grammar.TURN` allows. Every element that `encode` returns is
    one record. `apart` says that each record needs a body message of its own (contract for
    clients that parse each read as whole records); otherwise records may be joined. `ends_alone`
    says that such clients lose whatever they read together with the last record. `one_shot` says
    that nothing comes before `TurnFinished`, whose single record is the whole body.
    """

    apart: bool
    ends_alone: bool
    one_shot: bool

    def head(self) -> Reply:
        """Status and headers of the stream; the body is empty."""
        ...

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        """The event's records, none where this wire has no word for it."""
        ...

    def keep_alive(self) -> Sequence[bytes]:
        """What may be sent in a silence without meaning anything; legal at any time before
        the terminal record, the first record included."""
        ...

    def shown(self, event: TurnFinished) -> str:
        """The whole reply's text as its client shows it in the end; history keeps that."""
        ...


class Dialect(Protocol):
    """A client's wire format; stateless, one instance."""

    name: str
    routes: tuple[Route, ...]
    credentials: tuple[CredentialSource, ...]
    conflict: ConflictRule

    def decode_request(
        self, head: RequestHead, body: bytes, options: DialectOptions
    ) -> ChatRequest:
        """The request's meaning. Raises `BadRequest`, or `HttpError` 415."""
        ...

    def encoder(self, turn: TurnContext) -> Encoder:
        """An encoder for one turn, in the framing that `decode_request` chose."""
        ...

    def encode_error(self, error: GatewayError) -> Reply:
        """The answer to a request that failed before its stream began."""
        ...


class Decoder(Protocol):
    """One upstream stream's bytes in, model events out; any split of the bytes gives the same."""

    def feed(self, chunk: bytes) -> list[ModelEvent]:
        """The events that `chunk` completes; nothing after `ModelFinished`.

        Raises `UpstreamError` subclasses for an error inside the stream, and
        `UpstreamProtocolError` for bytes that break the protocol.
        """
        ...

    def close(self) -> list[ModelEvent]:
        """The events that the end of the stream completes; raises `Truncated` if cut short."""
        ...

    @property
    def finishing(self) -> bool:
        """Whether `close` would be a good end now: all that matters is there, bar the end mark."""
        ...


class Upstream(Protocol):
    """A model server's wire format; stateless."""

    provider: str

    def encode_request(self, prompt: Prompt) -> UpstreamRequest:
        """The call as bytes, streaming and with usage asked for."""
        ...

    def decoder(self, content_type: str, *, rounds: int = 0, citations: int = 0) -> Decoder:
        """A decoder for one answer of status 200; `rounds` and `citations` are the prompt's.

        Raises `UpstreamProtocolError` for a type that no such answer has.
        """
        ...

    def decode_error(self, status: int, headers: Headers, body: bytes) -> GatewayError:
        """What an answer with another status means; `body` may be cut."""
        ...
