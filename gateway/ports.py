"""The Protocols between the parts. `wiring.py` is the only place that knows who implements them.

Codecs (`Dialect`, `Encoder`, `Upstream`, `Decoder`) are sans-IO: bytes or values in, values or
bytes out, no clock, socket, logger or random source. The others do the work that waits.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.errors import GatewayError
from gateway.events import ModelEvent, TurnEvent
from gateway.messages import (
    NO_TERMS,
    ChatRequest,
    Conversation,
    ConversationKey,
    ConversationPage,
    ConversationStatus,
    DialectOptions,
    Headers,
    Lease,
    Leased,
    Message,
    MessagePage,
    Once,
    Price,
    Principal,
    Prompt,
    Recorded,
    Reply,
    RequestHead,
    Terms,
    TurnContext,
    UpstreamRequest,
)

ConflictRule = Literal["reject", "queue"]
Admit = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One chat route: `/sessions/{id}/messages`; a parameter is one path segment."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """A header that may carry the credential; `bearer` ones have the scheme before it."""

    header: str
    bearer: bool = False


class Encoder(Protocol):
    """Turn events in, body messages out; one per turn.

    Events come in an order that `grammar.TURN` allows. Every element that `encode` returns is
    one record. `apart` says that each record needs a body message of its own (contract for
    clients that parse each read as whole records); otherwise records may be joined. `one_shot`
    says that nothing comes before `TurnFinished`, whose single record is the whole body.
    """

    apart: bool
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


class Dialect(Protocol):
    """A client's wire format; stateless, one instance."""

    name: str
    routes: tuple[Route, ...]
    credentials: tuple[CredentialSource, ...]
    conflict: ConflictRule
    keep_alive_s: float | None

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

        Without `last_resort` also if every server is out of use for its failures: there is
        another upstream to go to.
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

    async def begin(self) -> None:
        """Sends the head and the opening record, or only notes them where nothing streams."""
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


class ConversationStore(Protocol):
    """Conversations and their messages.

    Every method raises `StoreUnavailable` when the store does not answer in time or refuses.
    A cancelled call has either happened wholly or not at all. A conversation that nobody wrote to
    for the store's retention time is unknown to every method, whether it was swept yet or not.

    A turn is `begin`, then `commit` or `release`, and `renew` while it runs: a lease that nobody
    renews for `lease_s` seconds is free for the next turn, wherever that runs.
    """

    lease_s: float

    async def open(self) -> None:
        """Makes ready; raises `StoreUnavailable` if it cannot be used."""
        ...

    async def close(self) -> None:
        """Writes what is pending and lets go of every resource."""
        ...

    async def load(self, key: ConversationKey, *, create: bool, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages, oldest first.

        With `create` an unknown one is made, else `NotFound` is raised.
        """
        ...

    async def create(
        self,
        key: ConversationKey,
        *,
        owner: str | None,
        subject: str | None,
        terms: Terms = NO_TERMS,
    ) -> Conversation:
        """A new conversation. Raises `Conflict` if the key is taken."""
        ...

    async def restore(self, conversation: Conversation) -> None:
        """Adds a whole conversation with its messages as it was, in one step.

        Its `length` is the number of its messages. Raises `Conflict` if the key or the public id
        is taken.
        """
        ...

    async def append(self, key: ConversationKey, messages: Sequence[Message]) -> None:
        """Adds the messages in order, all or none. Raises `NotFound` for an unknown key."""
        ...

    async def begin(
        self,
        key: ConversationKey,
        *,
        identity: str | None,
        create: bool,
        messages: int,
        once: Once | None = None,
    ) -> Leased | Recorded:
        """Lock and `load` in one step, or what a request with this `once` was answered before.

        With `create` an unknown conversation is made, owned by `identity`. Raises `NotFound`,
        `NotOwner` (it has another owner), `ConversationBusy` (another lease is alive) and
        `KeyReused` (`once` came with another body, or its reply was too long to be recorded).
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Lets the leases live for another `lease_s`; one that was lost stays lost."""
        ...

    async def commit(
        self, lease: Lease, messages: Sequence[Message], *, record: bytes | None = None
    ) -> None:
        """`append` and the end of the lease in one step; a second time it does nothing.

        `record` answers later requests with the lease's `once` for ten minutes. Raises `NotFound`
        if the conversation is gone, and `Conflict` if another lease was given meanwhile; nothing
        is stored then.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """The end of the lease without a message; nothing if it is over already."""
        ...

    async def update(
        self,
        key: ConversationKey,
        *,
        subject: str | None = None,
        status: ConversationStatus | None = None,
    ) -> Conversation:
        """The conversation (without messages) after the change; None changes nothing.

        One that has ended keeps its status. Raises `NotFound`.
        """
        ...

    async def mark_read(self, key: ConversationKey, count: int) -> None:
        """Notes that the first `count` messages were read; never takes back. Raises `NotFound`."""
        ...

    async def delete(self, key: ConversationKey) -> None:
        """Forgets the conversation and its messages. Raises `NotFound`."""
        ...

    async def recent(
        self,
        tenant: str,
        dialect: str,
        *,
        owner: str | None,
        limit: int,
        cursor: str | None = None,
        messages: int = 0,
    ) -> ConversationPage:
        """That owner's conversations (None: those without one), last written to first, with the
        newest `messages` messages of each.

        A conversation that nobody writes to meanwhile is on exactly one of the pages. Raises
        `BadRequest` for a cursor that no page had.
        """
        ...

    async def count(
        self, tenant: str, dialect: str, *, owner: str | None, unread: bool = False
    ) -> int:
        """How many conversations `recent` would give in all; with `unread`, of those how many have
        messages that were not read."""
        ...

    async def find(
        self, tenant: str, dialect: str, public_id: str, *, messages: int
    ) -> Conversation:
        """As `load`, by the public id. Raises `NotFound`."""
        ...

    async def history(self, key: ConversationKey, *, limit: int, after: int = 0) -> MessagePage:
        """The messages from the oldest on, `limit` at a time. Raises `NotFound`."""
        ...

    async def scan(self, *, limit: int, cursor: str | None = None) -> ConversationPage:
        """Every conversation of every tenant, without messages and in no promised order.

        One that is there all the time comes at least once. Raises `BadRequest` as `recent` does.
        """
        ...


class Authenticator(Protocol):
    """Turns a route's credential into a principal."""

    def authenticate(self, credential: str, dialect: str, *, now: float) -> Principal:
        """Raises `Unauthorized`, `Forbidden` or `MailboxNotFound`; `now` in epoch seconds."""
        ...


class Endpoint(Protocol):
    """A small JSON route beside a dialect's chat route, for callers with a credential."""

    dialect: str
    routes: tuple[Route, ...]
    credentials: tuple[CredentialSource, ...]
    authenticator: Authenticator

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The whole answer to a caller who was admitted. Raises `GatewayError`."""
        ...


class OpenEndpoint(Protocol):
    """A small JSON route for callers whose credential, if any, is in the body."""

    dialect: str
    routes: tuple[Route, ...]

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """The whole answer. Raises `GatewayError`.

        `admit` is to be called with the tenant as soon as it is known; it raises `Forbidden` for
        an origin that the tenant does not list, and `RateLimited`.
        """
        ...
