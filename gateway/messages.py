"""Requests, prompts, history and replies: the values that are not events.

Sans-IO: times and ids arrive as arguments.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from gateway.errors import ErrorKind

DialectName = Literal["hyponema", "hyperleap", "widget", "helper"]
Role = Literal["system", "user", "assistant"]
StreamFormat = Literal["auto", "data-stream", "ui-message-stream"]
UnknownConversation = Literal["create", "reject"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that an upstream said it billed."""

    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, in whatever currency the configuration means."""

    input: float
    output: float


class Headers:
    """A request's or an answer's header fields: names in lower case, order and repeats kept."""

    __slots__ = ("_fields",)

    def __init__(self, fields: tuple[tuple[str, str], ...] = ()) -> None:
        self._fields = fields

    def all(self, name: str) -> list[str]:
        """Every value of the field, in the order sent."""
        return [value for key, value in self._fields if key == name]

    def get(self, name: str, default: str = "") -> str:
        """The field's first value."""
        for key, value in self._fields:
            if key == name:
                return value
        return default

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self._fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request without its body; `params` are the route's path parameters, percent-decoded."""

    method: str
    path: str
    query: str
    headers: Headers
    params: Mapping[str, str] = field(default_factory=dict)
    http_version: str = "1.1"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, or with an empty body the head of a stream.

    `refused` is the kind of error that it tells of in words that no dialect's table has.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    refused: ErrorKind | None = None


@dataclass(frozen=True, slots=True)
class DialectOptions:
    """What one tenant chose for one dialect (`tenants.*.dialects.*`)."""

    unknown_conversation: UnknownConversation = "create"
    stream_format: StreamFormat = "auto"
    tool_results: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One user message, out of whichever body the dialect reads it from.

    `framing` is a word of the dialect's own (it chose it from route, `Accept` and body) that
    `encoder` gets back in its context. `message_id` is the client's id of the message, if any;
    `continues` the id of a posted assistant message that the answer goes on with; `results` has
    what the client's own tools gave, by the id of the call: JSON text, or plain text.
    """

    conversation_id: str
    text: str
    framing: str
    message_id: str | None = None
    role: Literal["user", "assistant"] = "user"
    continues: str | None = None
    results: Mapping[str, str] = field(default_factory=dict)


MessageStatus = Literal["complete", "partial"]
ConversationStatus = Literal["open", "completed", "failed"]


class KeptCall(NamedTuple):
    """A tool call of a stored reply; `arguments` is JSON text, `result` None if no result came."""

    id: str
    name: str
    arguments: str
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation's history; `created_at` in seconds since the epoch (UTC).

    A `partial` assistant message is a reply that was cut short: it holds what the client was
    shown. `calls` are the tool calls of a reply, in their order; before them stand those of the
    former reply whose results the client brought, and which this reply goes on with.
    """

    id: str
    role: Role
    text: str
    created_at: float
    status: MessageStatus = "complete"
    calls: tuple[KeptCall, ...] = ()


class ConversationKey(NamedTuple):
    """Where a conversation lives. A look-up without the tenant cannot be written."""

    tenant: str
    dialect: str
    id: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What a conversation was started with; never changed.

    `agent` is the configured agent that serves it (None: the caller's), `variables` are the values
    of `{{name}}` in that agent's prompt, `expires_at` (seconds since the epoch) is when it ends by
    itself. `details` are JSON values that only the dialect's own endpoints read.
    """

    agent: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    expires_at: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)


NO_TERMS: Final = Terms()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A stored conversation and the newest part of its history, oldest first.

    `public_id` is 32 characters of `[a-z0-9]`, made once; `owner` the helper identity that
    started it, None where the tenant's key is owner enough. `updated_at` is when it was started or
    last written to. `length` counts its messages, `read` how many of them its owner has read.
    """

    key: ConversationKey
    public_id: str
    owner: str | None
    created_at: float
    messages: tuple[Message, ...] = ()
    subject: str | None = None
    updated_at: float = 0.0
    length: int = 0
    read: int = 0
    status: ConversationStatus = "open"
    terms: Terms = NO_TERMS

    def status_at(self, now: float) -> ConversationStatus:
        """The status, with an open conversation completed once it has expired."""
        expires_at = self.terms.expires_at
        if self.status == "open" and expires_at is not None and now >= expires_at:
            return "completed"
        return self.status


@dataclass(frozen=True, slots=True)
class ConversationPage:
    """A part of a list; `cursor` is where the next part begins, None at the end."""

    conversations: tuple[Conversation, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class MessagePage:
    """A part of a conversation's messages, oldest first, perhaps none where the store forgets;
    `after` begins the next part, None at the end."""

    messages: tuple[Message, ...]
    after: int | None


class Once(NamedTuple):
    """An `Idempotency-Key` and the request that it came with, both as digests in hex.

    `scope` covers who sent which key on which route, `body` the request's path and body.
    """

    scope: str
    body: str


class Lease(NamedTuple):
    """The right to write one turn into a conversation.

    `token` is larger than that of every earlier lease of the conversation, so a store can refuse
    what a former holder still tries to write. `nonce` is the holder's own.
    """

    key: ConversationKey
    token: int
    nonce: str
    once: Once | None = None


@dataclass(frozen=True, slots=True)
class Leased:
    """A conversation that is the caller's for one turn."""

    conversation: Conversation
    lease: Lease


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an earlier request with the same `Once` was answered, as it was handed to `commit`."""

    conversation: Conversation
    record: bytes


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as an upstream is told of it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message as an upstream is told of it; an assistant's `calls` all have their results."""

    role: Role
    text: str
    calls: tuple[KeptCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """One model call, in no upstream's words. The system prompt is apart from `messages`.

    `rounds` calls of the same turn went before and brought `citations` citations: what a codec
    makes up (ids of tool calls, indexes of citations) is unique in the turn.
    """

    model: str
    system: str
    messages: tuple[PromptMessage, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    rounds: int = 0
    citations: int = 0


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A model call as bytes: `path` is appended to the upstream's base URL; always a POST."""

    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What an encoder may put into a stream besides events. All ids are made before the turn.

    `turn_id`, `run_id` and `message_id` are UUIDs, constant for the turn; `message_id` is the id
    under which the reply is stored. `conversation_id` is the public one.
    """

    turn_id: str
    run_id: str
    message_id: str
    conversation_id: str
    trace_id: str
    model: str
    framing: str
    created_at: int
    refusal: str = ""
    continues: str | None = None
    options: DialectOptions = DialectOptions()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking: a tenant, the key or token that proved it, and the agent that serves it.

    `identity` is helper's: the e-mail or the anonymous session of the token.
    """

    tenant: str
    key: str
    agent: str
    identity: str | None = None
