"""The settings as types: every attribute is a YAML key of the same name.

Immutable, unknown keys refused, no coercion. A default is the value that `config/gateway.yaml`
shows. Times end in `_s` and are seconds; sizes are bytes unless the name says tokens. What needs
more than one value to judge (references, uniqueness) is in `checks.py`, what a single value may
be in `values.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.messages import DialectName, StreamFormat, UnknownConversation
from gateway.settings.values import (
    ApiSecret,
    BaseUrl,
    Bind,
    File,
    HeaderName,
    HeaderValue,
    HostName,
    JsonObject,
    KeyHash,
    Moment,
    Name,
    Network,
    Origin,
    Positive,
    Price,
    Rate,
    Regex,
    Seconds,
    SecondsOrZero,
    SessionSecret,
    StoreUrl,
    Text,
)

Protocol = Literal["embedded", "openai", "anthropic"]
OnDisconnect = Literal["cancel", "finish"]

EMBEDDED_MODEL_NAME: Final = "smollm2-135m-instruct"


class Section(BaseModel):
    """A mapping with a fixed set of keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


class ServerSettings(Section):
    """The public listener and the process."""

    bind: tuple[Bind, ...] = ("127.0.0.1:8080",)
    tls_bind: tuple[Bind, ...] = ()
    certificate: File | None = None
    private_key: File | None = None
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    drain_notice_s: SecondsOrZero = 5
    drain_s: SecondsOrZero = 30
    trusted_proxies: tuple[Network, ...] = ()
    playground: bool = False
    allow_no_keys: bool = False


class AdminSettings(Section):
    """The listener for metrics and probes."""

    bind: Bind = "127.0.0.1:9464"


class StoreSettings(Section):
    """Where conversations live."""

    url: StoreUrl = "sqlite:var/gateway.db"
    retention_days: Annotated[int, Field(ge=1, le=36_500)] = 90


class LimitSettings(Section):
    """Bounds of one worker."""

    turns_in_flight: Positive = 500
    body_bytes: Positive = 131_072
    body_s: Seconds = 10
    send_s: Seconds = 30
    stream_keep_alive_s: Seconds = 15
    connection_idle_s: Seconds = 10
    output_bytes: Positive = 1_048_576


class TargetSettings(Section):
    """One of several servers behind an upstream; calls are shared out by weight."""

    base_url: BaseUrl
    weight: Annotated[int, Field(ge=1, le=1000)] = 1


class UpstreamSettings(Section):
    """A model server, or several with the same models. `model` is the name that it and the clients
    are told; `max_in_flight` counts the calls of one worker to one server."""

    protocol: Protocol = "openai"
    base_url: BaseUrl | None = None
    api_key: ApiSecret | None = None
    model: Text = "default"
    targets: tuple[TargetSettings, ...] = ()
    connect_s: Seconds = 3
    first_token_s: Seconds = 60
    idle_s: Seconds = 30
    total_s: Seconds = 300
    max_in_flight: Positive = 200
    context_tokens: Positive | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    ca_file: File | None = None
    extra_body: JsonObject = {}
    extra_headers: Mapping[HeaderName, HeaderValue] = {}

    @property
    def servers(self) -> tuple[str, ...]:
        """Their addresses; none where the gateway itself runs the model."""
        alone = (self.base_url,) if self.base_url is not None else ()
        return alone or tuple(target.base_url for target in self.targets)

    @property
    def place(self) -> str:
        """What answers and where, as people read it."""
        if self.protocol == "embedded":
            return "embedded model"
        return f"{self.protocol} {self.model} at {', '.join(self.servers)}"


class AgentSettings(Section):
    """An assistant: its models in order of preference, its prompt and its bounds."""

    upstreams: Annotated[tuple[str, ...], Field(min_length=1)] = ("local",)
    system_prompt: str = ""
    history_messages: Annotated[int, Field(ge=0, le=10_000)] = 30
    max_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    stop: tuple[Text, ...] = ()
    tools: tuple[str, ...] = ()
    tool_rounds: Annotated[int, Field(ge=1, le=100)] = 8
    guards: tuple[str, ...] = ()
    turn_s: Seconds = 300
    on_disconnect: OnDisconnect = "cancel"
    refusal: Text = "I can't help with that."


class KeySettings(Section):
    """A key: only its hash is kept. `expires` is the first moment at which it no longer works;
    `agent` serves instead of the tenant's."""

    hash: KeyHash
    dialects: Annotated[tuple[DialectName, ...], Field(min_length=1)]
    expires: Moment | None = None
    agent: str | None = None
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrent_turns: Rate | None = None


class HelperSettings(Section):
    """A tenant as a Helper mailbox; without secrets it has none. The first secret signs."""

    session_secrets: tuple[SessionSecret, ...] = ()
    stream_format: StreamFormat = "auto"
    unknown_conversation: UnknownConversation = "reject"
    tool_results: bool = False


class HyponemaSettings(Section):
    """`agents` maps an `agent_id` of `POST /sessions` to an agent."""

    agents: Mapping[Text, str] = {}
    unknown_conversation: UnknownConversation = "create"


class HyperleapSettings(Section):
    """`personas` maps a `personaId` to an agent."""

    personas: Mapping[Text, str] = {}
    tool_items: bool = False
    unknown_conversation: UnknownConversation = "create"


class WidgetSettings(Section):
    """`admin_key` opens the widget's admin routes."""

    admin_key: ApiSecret | None = None
    unknown_conversation: UnknownConversation = "create"


class DialectSettings(Section):
    """What a tenant chose for each dialect."""

    helper: HelperSettings = HelperSettings()
    hyponema: HyponemaSettings = HyponemaSettings()
    hyperleap: HyperleapSettings = HyperleapSettings()
    widget: WidgetSettings = WidgetSettings()


class TenantSettings(Section):
    """Who owns keys and conversations.

    `cors_origins` None is each dialect's own default (any origin for helper, none for the
    others); an empty tuple is no origin at all.
    """

    agent: str = "default"
    hosts: tuple[HostName, ...] = ()
    cors_origins: tuple[Origin, ...] | None = None
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrent_turns: Rate | None = None
    requests_per_minute_per_client: Rate | None = None
    tokens_per_minute_per_client: Rate | None = None
    concurrent_turns_per_client: Rate | None = None
    keys: Mapping[Name, KeySettings] = {}
    dialects: DialectSettings = DialectSettings()


class ToolSettings(Section):
    """A tool that the gateway runs: an HTTP endpoint, or the tools of an MCP server."""

    kind: Literal["http", "mcp"]
    url: BaseUrl | None = None
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: Mapping[HeaderName, HeaderValue] = {}
    description: str = ""
    parameters: JsonObject = {"type": "object"}
    timeout_s: Seconds = 10
    result_bytes: Positive = 65_536
    command: tuple[Text, ...] = ()
    allow: tuple[Text, ...] = ()


class GuardSettings(Section):
    """A rule about what a user may ask and a model may answer."""

    kind: Literal["phrases", "length", "moderation"]
    where: Literal["input", "output", "both"] = "both"
    phrases: tuple[Text, ...] = ()
    regexes: tuple[Regex, ...] = ()
    max_length: Positive = 200
    action: Literal["block", "redirect", "escalate"] = "block"
    replacement: str | None = None
    on_error: Literal["open", "closed"] = "closed"
    webhook: BaseUrl | None = None


class PriceSettings(Section):
    """What a million tokens of a model cost."""

    input: Price
    output: Price


class Settings(Section):
    """Everything that one process is told; immutable."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    store: StoreSettings = StoreSettings()
    limits: LimitSettings = LimitSettings()
    upstreams: Mapping[Name, UpstreamSettings] = {"local": UpstreamSettings(protocol="embedded")}
    agents: Mapping[Name, AgentSettings] = {"default": AgentSettings()}
    tenants: Mapping[Name, TenantSettings] = {}
    tools: Mapping[Name, ToolSettings] = {}
    guards: Mapping[Name, GuardSettings] = {}
    prices: Mapping[Text, PriceSettings] = {}
