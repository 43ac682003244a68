"""The settings as types: every attribute is a YAML key of the same name.

Immutable, unknown keys refused, no coercion. A default is the value that `config/gateway.yaml`
shows. Times end in `_s` and are seconds; sizes are bytes unless the name says tokens. What needs
more than one value to judge (references, uniqueness) is in `checks.py`.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
)

from gateway.messages import StreamFormat, UnknownConversation

DialectName = Literal["hyponema", "hyperleap", "widget", "helper"]
Protocol = Literal["embedded", "openai", "anthropic"]
OnDisconnect = Literal["cancel", "finish"]

EMBEDDED_MODEL_NAME: Final = "smollm2-135m-instruct"
NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,31}$"
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_BIND: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_MIN_SECRET_BYTES: Final = 32
_DAY_S: Final = 86_400


def _bind(value: str) -> str:
    match = _BIND.fullmatch(value)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(f"{value!r} is not HOST:PORT, e.g. 127.0.0.1:8080 or [::1]:8080")
    return value


def _base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        # Its own words quote the address, and what is malformed may be a password.
        raise ValueError("is not an address, e.g. http://127.0.0.1:9001/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address, e.g. http://127.0.0.1:9001/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user or password; use api_key or extra_headers")
    if parts.query or parts.fragment:
        raise ValueError("must end with the path: a query or fragment cannot be appended to")
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    return value.rstrip("/")


def _store_url(value: str) -> str:
    scheme, _, rest = value.partition(":")
    if scheme == "memory" and not rest:
        return value
    if scheme == "sqlite" and rest:
        return value
    if scheme in ("redis", "rediss", "valkey", "valkeys") and rest.startswith("//"):
        _check_server_url(value)
        return value
    raise ValueError("must be memory:, sqlite:PATH, redis://… or valkey://…")


def _check_server_url(url: str) -> None:
    """Its text may hold a password, so no complaint repeats any of it."""
    parts = urlsplit(url)
    try:
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"(/[0-9]{0,4})?", parts.path) or parts.query or parts.fragment:
        raise ValueError("must be SCHEME://[USER:PASSWORD@]HOST[:PORT][/DATABASE]")


def _host_name(value: str) -> str:
    lower = value.lower()
    if not _HOST.fullmatch(lower):
        raise ValueError(f"{value!r} is not a host name; give it without scheme, port and path")
    return lower


def _origin(value: str) -> str:
    if value in ("*", "null"):
        return value
    parts = urlsplit(value)
    if not parts.scheme or not parts.hostname or value != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(
            f"{value!r} is not an origin; write scheme://host[:port], no slash at the end"
        )
    return value.lower()


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        raise ValueError(
            f"{value!r} is not an address or a network, e.g. 10.0.0.0/8 or 192.0.2.1"
        ) from None


def _key_hash(value: SecretStr) -> SecretStr:
    lower = value.get_secret_value().lower()
    if not _HASH.fullmatch(lower):
        raise ValueError(
            "must be sha256: and 64 hexadecimal digits; `gateway keys new` makes a key and its hash"
        )
    return SecretStr(lower)


def _session_secret(value: SecretStr) -> SecretStr:
    size = len(value.get_secret_value().encode())
    if size < _MIN_SECRET_BYTES:
        raise ValueError(f"has {size} bytes, needs at least {_MIN_SECRET_BYTES}")
    return value


def _secret_text(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII and not empty")
    return value


def _header_name(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise ValueError(f"{value!r} is not a header name")
    return value


def _moment(value: object) -> object:
    """A date is its first second, in UTC; a text is read as ISO 8601."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a date or time, e.g. 2027-01-31T00:00:00Z") from None
    if isinstance(value, datetime):
        if value.tzinfo is None and (value.hour, value.minute, value.second) != (0, 0, 0):
            raise ValueError("needs a time zone, e.g. 2027-01-31T12:00:00Z")
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def _json(value: Mapping[str, object]) -> Mapping[str, object]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("must hold JSON values only; put dates in quotes") from None
    return value


def _file(value: object) -> object:
    return Path(value) if isinstance(value, str) else value


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Text = Annotated[str, StringConstraints(min_length=1)]
Bind = Annotated[str, AfterValidator(_bind)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Network = Annotated[str, AfterValidator(_network)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[SecretStr, AfterValidator(_secret_text)]
ApiSecret = Annotated[SecretStr, AfterValidator(_secret_text)]
KeyHash = Annotated[SecretStr, AfterValidator(_key_hash)]
SessionSecret = Annotated[SecretStr, AfterValidator(_session_secret)]
JsonObject = Annotated[Mapping[str, object], AfterValidator(_json)]
File = Annotated[Path, BeforeValidator(_file)]
Seconds = Annotated[float, Field(gt=0, le=_DAY_S, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=_DAY_S, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1, le=2**40)]
Rate = Annotated[int, Field(ge=1, le=10**9)]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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

    url: Annotated[str, AfterValidator(_store_url)] = "sqlite:var/gateway.db"
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
    expires: Annotated[datetime, BeforeValidator(_moment)] | None = None
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
    hosts: tuple[Annotated[str, AfterValidator(_host_name)], ...] = ()
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] | None = None
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrent_turns: Rate | None = None
    requests_per_minute_per_client: Rate | None = None
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
    regexes: tuple[Annotated[str, AfterValidator(_regex)], ...] = ()
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
