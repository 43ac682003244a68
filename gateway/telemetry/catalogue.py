"""Every metric family that the gateway exports: name, type, labels, help and buckets.

Names and buckets of the `gen_ai_*` families are OpenTelemetry's semantic conventions for
generative AI, metrics (status: development), in their Prometheus spelling: dots become
underscores, the unit is a suffix, `{token}` is none. `gen_ai_client_*` is the gateway's call to a
model, one sample per round; `gen_ai_server_*` is what the gateway's own caller saw, one per turn.

Every label has a closed set of values: words of this program, names out of the configuration, or
the number of a worker's place (0, 1, …), which its successor takes over. All workers' values are
one page: counters and histograms are summed over every worker that ever ran, gauges over those
that run, unless `merge` says otherwise. `process_*` are those of prometheus_client, as sums over
the supervisor, its workers and the embedded model (limits and start: the supervisor's own).
"""

from dataclasses import dataclass
from typing import Final, Literal

Direction = Literal["input", "output"]

OTHER: Final = "other"
"""The value of a label whose real value is in no closed set."""

HTTP_VERSIONS: Final = ("1.1", "2", OTHER)
DIRECTIONS: Final[tuple[Direction, ...]] = ("input", "output")
OPERATION: Final = "chat"
ERROR_TYPES: Final = (
    "",
    "timeout",
    "rate_limit",
    "upstream_5xx",
    "malformed_stream",
    "cancelled",
    "_OTHER",
)
CALL_OUTCOMES: Final = (
    *("ok", "cancelled", "deadline", "drained", "internal", "overloaded"),
    *("connect_timeout", "first_token_timeout", "idle_timeout", "total_timeout"),
    *("upstream_timeout", "upstream_error", "upstream_unavailable", "upstream_rate_limited"),
    *("upstream_denied", "upstream_rejected", "truncated", "content_filtered", "context_length"),
)
OVERFLOW_LABELS: Final = (
    *("dialect", "kind", "outcome", "upstream", "provider", "model"),
    *("target", "call_outcome"),
)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; `buckets` are upper bounds in the unit of its name, without +Inf.

    `merge` is how the gauges of several workers become one.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    merge: Literal["sum", "max"] = "sum"

    @property
    def cells(self) -> int:
        """How many numbers one child is: of a histogram the buckets, +Inf and the sum."""
        return len(self.buckets) + 2 if self.type == "histogram" else 1


_DURATION: Final = tuple(round(0.01 * 2**power, 2) for power in range(14))
_TURN: Final = tuple(round(0.01 * 2**power, 2) for power in range(16))
_FIRST_TOKEN: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0),
)
_TOKEN_GAP: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS: Final = tuple(float(4**power) for power in range(14))

_MODEL: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

TURNS: Final = Family(
    "chatgw_turns_total",
    "counter",
    ("dialect", "outcome", "http_version"),
    "Admitted chat requests that have ended, each counted once.",
)
REFUSED: Final = Family(
    "chatgw_refused_total",
    "counter",
    ("dialect", "kind"),
    "Requests that were refused before a turn began.",
)
LIMITED: Final = Family(
    "chatgw_limited_total",
    "counter",
    ("limit",),
    "Requests that were refused because of this limit of a tenant, a key or a visitor's address.",
)
UNCHECKED: Final = Family(
    "chatgw_limits_unchecked_total",
    "counter",
    (),
    "Requests that were let through because their limits could not be read.",
)
ADMITTED: Final = Family(
    "chatgw_turns_admitted_total",
    "counter",
    ("dialect", "http_version"),
    "Admitted chat requests, each counted as it begins.",
)
IN_FLIGHT: Final = Family(
    "chatgw_turns_in_flight",
    "gauge",
    ("dialect",),
    "Admitted chat requests that have not ended.",
)
TURN_DURATION: Final = Family(
    "chatgw_turn_duration_seconds",
    "histogram",
    ("dialect",),
    "From a chat request's last byte to the turn's end.",
    _TURN,
)
FIRST_TOKEN: Final = Family(
    "chatgw_time_to_first_token_seconds",
    "histogram",
    ("dialect",),
    "From a chat request's last byte to the first visible text handed to the server.",
    _FIRST_TOKEN,
)
TOKENS: Final = Family(
    "chatgw_tokens_total",
    "counter",
    ("dialect", "direction"),
    "Tokens that upstreams said they billed; a call without usage adds nothing.",
)
WITHOUT_USAGE: Final = Family(
    "chatgw_turns_without_usage_total",
    "counter",
    ("upstream",),
    "Turns in which the upstream began to answer and then sent no usage.",
)
DRAINING: Final = Family(
    "chatgw_draining",
    "gauge",
    (),
    "1 while the gateway takes no new turns because it is stopping.",
)
BUILD_INFO: Final = Family(
    "chatgw_build_info",
    "gauge",
    ("version", "python", "hypercorn"),
    "Always 1; the labels say what is running.",
    merge="max",
)
LABEL_OVERFLOW: Final = Family(
    "chatgw_label_overflow_total",
    "counter",
    ("label",),
    "Times that a label's value was in no closed set and became other.",
)
LOG_LINES_DROPPED: Final = Family(
    "chatgw_log_lines_dropped_total",
    "counter",
    (),
    "Log lines that were dropped because nobody read standard output.",
)
WORKERS: Final = Family(
    "chatgw_workers",
    "gauge",
    ("state",),
    "Worker processes: starting, listening, or leaving (they finish their turns).",
)
WORKERS_CONFIGURED: Final = Family(
    "chatgw_workers_configured",
    "gauge",
    (),
    "Worker processes that there should be.",
)
WORKER_RESTARTS: Final = Family(
    "chatgw_worker_restarts_total",
    "counter",
    ("reason",),
    "Workers that were lost and replaced: exit, signal, wedged (no sign of life), start.",
)
WORKER_LAG: Final = Family(
    "chatgw_worker_lag_seconds",
    "gauge",
    ("worker",),
    "The longest that a worker's event loop was held up in the last 15 to 30 seconds.",
)
WORKER_MEMORY: Final = Family(
    "chatgw_worker_resident_memory_bytes",
    "gauge",
    ("worker",),
    "Resident memory of the worker in this place.",
)
CONFIG_RELOADS: Final = Family(
    "chatgw_config_reloads_total",
    "counter",
    ("result",),
    "Changed configurations: good, invalid (not used), failed (a worker did not start on it).",
)
CONFIG_GOOD: Final = Family(
    "chatgw_config_last_reload_successful",
    "gauge",
    (),
    "1 if the configuration that was read last is in force.",
)
CONFIG_TIME: Final = Family(
    "chatgw_config_last_reload_success_timestamp_seconds",
    "gauge",
    (),
    "When the configuration in force was read, since the epoch.",
)
CREDENTIALS: Final = Family(
    "chatgw_credentials",
    "gauge",
    (),
    "Keys and session secrets of the configuration in force; without any nobody is let in.",
)
UNREADABLE: Final = Family(
    "chatgw_scoreboards_unreadable_total",
    "counter",
    (),
    "Times that a worker's numbers could not be read and were left out.",
)
COST: Final = Family(
    "chatgw_cost_total",
    "counter",
    ("dialect", "upstream", "model"),
    "Cost of what upstreams said they billed, in the currency of `prices`.",
)
UNDELIVERED: Final = Family(
    "chatgw_undelivered_deltas_total",
    "counter",
    ("dialect",),
    "Deltas that a model generated and no client was given.",
)
UPSTREAM_CALLS: Final = Family(
    "chatgw_upstream_calls_total",
    "counter",
    ("upstream", "target", "outcome"),
    "Model calls that have ended, retries included; cancelled is for a client that left.",
)
UPSTREAM_IN_FLIGHT: Final = Family(
    "chatgw_upstream_in_flight",
    "gauge",
    ("upstream", "target"),
    "Model calls that have not ended.",
)
UPSTREAM_EJECTED: Final = Family(
    "chatgw_upstream_ejected",
    "gauge",
    ("upstream", "target"),
    "Workers that leave the target out because of consecutive failures.",
)
UPSTREAM_EJECTIONS: Final = Family(
    "chatgw_upstream_ejections_total",
    "counter",
    ("upstream", "target"),
    "Times that a target was left out.",
)
UPSTREAM_RETRIES: Final = Family(
    "chatgw_upstream_retries_total",
    "counter",
    ("upstream",),
    "Calls that repeated a failed one before anything was generated.",
)
UPSTREAM_RETRIES_REFUSED: Final = Family(
    "chatgw_upstream_retries_refused_total",
    "counter",
    ("upstream",),
    "Retries that were left out because the retry budget was spent.",
)
UPSTREAM_FALLBACKS: Final = Family(
    "chatgw_upstream_fallbacks_total",
    "counter",
    ("upstream",),
    "Turns that gave the upstream up and went on to the agent's next one.",
)
UPSTREAM_FULL: Final = Family(
    "chatgw_upstream_full_total",
    "counter",
    ("upstream",),
    "Calls that were not made because every target had max_in_flight.",
)
CLIENT_TOKENS: Final = Family(
    "gen_ai_client_token_usage",
    "histogram",
    (*_MODEL, "gen_ai_token_type"),
    "Tokens of one model call, as its upstream billed them.",
    _TOKENS,
)
CLIENT_DURATION: Final = Family(
    "gen_ai_client_operation_duration_seconds",
    "histogram",
    (*_MODEL, "error_type"),
    "Duration of one model call.",
    _DURATION,
)
CLIENT_FIRST_CHUNK: Final = Family(
    "gen_ai_client_operation_time_to_first_chunk_seconds",
    "histogram",
    _MODEL,
    "From a model call's beginning to its first event.",
    _DURATION,
)
SERVER_DURATION: Final = Family(
    "gen_ai_server_request_duration_seconds",
    "histogram",
    (*_MODEL, "error_type"),
    "Duration of one turn; without provider and model if it ended before a model was called.",
    _DURATION,
)
SERVER_FIRST_TOKEN: Final = Family(
    "gen_ai_server_time_to_first_token_seconds",
    "histogram",
    _MODEL,
    "From a request's last byte to the first generated text, reasoning or tool call; good turns.",
    _FIRST_TOKEN,
)
SERVER_TOKEN_GAP: Final = Family(
    "gen_ai_server_time_per_output_token_seconds",
    "histogram",
    _MODEL,
    "Time per output token after the first one; good turns with usage.",
    _TOKEN_GAP,
)

CATALOGUE: Final = (
    TURNS,
    REFUSED,
    LIMITED,
    UNCHECKED,
    ADMITTED,
    IN_FLIGHT,
    TURN_DURATION,
    FIRST_TOKEN,
    TOKENS,
    WITHOUT_USAGE,
    DRAINING,
    BUILD_INFO,
    LABEL_OVERFLOW,
    LOG_LINES_DROPPED,
    WORKERS,
    WORKERS_CONFIGURED,
    WORKER_RESTARTS,
    WORKER_LAG,
    WORKER_MEMORY,
    CONFIG_RELOADS,
    CONFIG_GOOD,
    CONFIG_TIME,
    CREDENTIALS,
    UNREADABLE,
    COST,
    UNDELIVERED,
    UPSTREAM_CALLS,
    UPSTREAM_IN_FLIGHT,
    UPSTREAM_EJECTED,
    UPSTREAM_EJECTIONS,
    UPSTREAM_RETRIES,
    UPSTREAM_RETRIES_REFUSED,
    UPSTREAM_FALLBACKS,
    UPSTREAM_FULL,
    CLIENT_TOKENS,
    CLIENT_DURATION,
    CLIENT_FIRST_CHUNK,
    SERVER_DURATION,
    SERVER_FIRST_TOKEN,
    SERVER_TOKEN_GAP,
)

BY_NAME: Final = {family.name: family for family in CATALOGUE}
