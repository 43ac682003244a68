"""Every way a request can fail, once.

A class carries its `kind` (the word used in bodies, in-stream errors and metric labels) and the
HTTP `status` that fits it best. Code raises the fact; a dialect's table turns the kind into that
dialect's own status and text. A message is for the log only: what a client reads is fixed per
kind, so no upstream's words, key, path or stack can reach it.

    GatewayError
    ├── RequestError            the caller's side; refused before a turn starts
    │   ├── BadRequest  Unauthorized  Forbidden  NotFound  Conflict
    │   ├── PayloadTooLarge  ContextLength  RateLimited
    │   └── HttpError           a status that HTTP itself fixes: 404 405 408 414 415 431
    ├── Unavailable             this gateway, for now
    │   └── Overloaded  Draining  StoreUnavailable
    ├── UpstreamError           the model's side
    │   ├── UpstreamRateLimited  UpstreamUnavailable  UpstreamDenied  UpstreamRejected
    │   ├── UpstreamTimeout     ConnectTimeout  FirstTokenTimeout  IdleTimeout  TotalTimeout
    │   └── UpstreamProtocolError  Truncated  ReplyTooLong  ContentFiltered
    ├── TurnStopped             a running turn was ended from outside
    │   └── Cancelled  Deadline  Drained
    └── Internal                a fault of this program
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, get_args

ErrorKind = Literal[
    "bad_request",
    "unauthorized",
    "forbidden",
    "not_found",
    "conflict",
    "payload_too_large",
    "rate_limited",
    "upstream_error",
    "upstream_rate_limited",
    "upstream_unavailable",
    "upstream_timeout",
    "overloaded",
    "draining",
    "store_unavailable",
    "internal",
    "content_filtered",
    "context_length",
    "truncated",
    "cancelled",
    "deadline",
    "drained",
]

ERROR_KINDS: Final[tuple[ErrorKind, ...]] = get_args(ErrorKind)


@dataclass(frozen=True, slots=True)
class FieldIssue:
    """One member of a request body and what is wrong with it; never the value itself."""

    field: str
    issue: str


class GatewayError(Exception):
    """Something that ends a request.

    `retry_after` is in seconds, for the answer's `Retry-After`; None leaves the choice to the
    answer (429 and 503 always carry one). `elsewhere` says that the same call may do better on
    another server.
    """

    kind: ClassVar[ErrorKind] = "internal"
    status: ClassVar[int] = 500
    elsewhere: ClassVar[bool] = False

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message or self.kind)
        self.retry_after = retry_after


class RequestError(GatewayError):
    """The caller's request cannot be served as it is."""

    kind: ClassVar[ErrorKind] = "bad_request"
    status: ClassVar[int] = 400


class BadRequest(RequestError):
    """The body or a header breaks the documented rules; `issues` say which member and how."""

    def __init__(self, message: str = "", *, issues: Sequence[FieldIssue] = ()) -> None:
        super().__init__(message)
        self.issues: tuple[FieldIssue, ...] = tuple(issues)


class HttpError(RequestError):
    """A status that HTTP itself fixes (RFC 9110 section 15), in the dialect's body shape."""

    def __init__(
        self, http_status: int, message: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.headers: Mapping[str, str] = headers or {}


class Unauthorized(RequestError):
    """No credential, or none that is known, live and well formed: one answer for all of them."""

    kind: ClassVar[ErrorKind] = "unauthorized"
    status: ClassVar[int] = 401


class Forbidden(RequestError):
    """A right key on the wrong dialect, or from an origin that its tenant does not list."""

    kind: ClassVar[ErrorKind] = "forbidden"
    status: ClassVar[int] = 403


class NotFound(RequestError):
    """No such conversation for this caller; a foreign one looks the same."""

    kind: ClassVar[ErrorKind] = "not_found"
    status: ClassVar[int] = 404


class MailboxNotFound(NotFound):
    """A helper token names a tenant that is not configured."""


class NotOwner(Unauthorized):
    """A verified helper identity does not own the conversation that it names."""


class Conflict(RequestError):
    """Another turn is running on this conversation, or the conversation has ended."""

    kind: ClassVar[ErrorKind] = "conflict"
    status: ClassVar[int] = 409


class ConversationBusy(Conflict):
    """A turn is running on the conversation, here or in another worker; it may be waited for."""


class KeyReused(Conflict):
    """An `Idempotency-Key` came again and its first reply cannot be the answer."""


class PayloadTooLarge(RequestError):
    """The request body is over `limits.body_bytes`."""

    kind: ClassVar[ErrorKind] = "payload_too_large"
    status: ClassVar[int] = 413


class ContextLength(RequestError):
    """The newest message alone does not fit the model's context."""

    kind: ClassVar[ErrorKind] = "context_length"
    status: ClassVar[int] = 413


class RateLimited(RequestError):
    """The caller is over one of its limits."""

    kind: ClassVar[ErrorKind] = "rate_limited"
    status: ClassVar[int] = 429


class Unavailable(GatewayError):
    """This gateway cannot take the request now; another try may succeed."""

    kind: ClassVar[ErrorKind] = "overloaded"
    status: ClassVar[int] = 503


class Overloaded(Unavailable):
    """The worker runs as many turns as it may."""


class Draining(Unavailable):
    """The worker is stopping and takes no new turns."""

    kind: ClassVar[ErrorKind] = "draining"


class StoreUnavailable(Unavailable):
    """The conversation store did not answer, or refused a write."""

    kind: ClassVar[ErrorKind] = "store_unavailable"


class UpstreamError(GatewayError):
    """The model's server failed, or answered what no codec understands."""

    kind: ClassVar[ErrorKind] = "upstream_error"
    status: ClassVar[int] = 502
    elsewhere: ClassVar[bool] = True


class UpstreamRejected(UpstreamError):
    """The upstream finds fault with the request itself: 400, 413, 422 and their like."""

    elsewhere: ClassVar[bool] = False


class UpstreamDenied(UpstreamError):
    """The upstream refuses the gateway's own key, or does not know the model: 401 to 404."""


class UpstreamProtocolError(UpstreamError):
    """The upstream's bytes break its own protocol; the message names the byte offset or member."""


class UpstreamRateLimited(UpstreamError):
    """The upstream answered 429."""

    kind: ClassVar[ErrorKind] = "upstream_rate_limited"
    status: ClassVar[int] = 503


class UpstreamUnavailable(UpstreamError):
    """The upstream cannot be reached, or says that it is overloaded or down."""

    kind: ClassVar[ErrorKind] = "upstream_unavailable"
    status: ClassVar[int] = 503


class UpstreamTimeout(UpstreamError):
    """The upstream was too slow: it says so itself (408, 504), or one of the clocks ran out."""

    kind: ClassVar[ErrorKind] = "upstream_timeout"
    status: ClassVar[int] = 504


class ConnectTimeout(UpstreamTimeout):
    """No connection within `connect_s`."""


class FirstTokenTimeout(UpstreamTimeout):
    """Nothing generated within `first_token_s`."""


class IdleTimeout(UpstreamTimeout):
    """No byte for `idle_s`, though the model had begun to generate."""


class TotalTimeout(UpstreamTimeout):
    """The call is not over after `total_s`."""


class Truncated(UpstreamError):
    """The upstream's stream ended without its end mark."""

    kind: ClassVar[ErrorKind] = "truncated"


class ReplyTooLong(Truncated):
    """The reply was cut by the gateway: it is longer than it may be."""

    elsewhere: ClassVar[bool] = False


class ContentFiltered(UpstreamError):
    """The upstream's own filter refused the prompt."""

    kind: ClassVar[ErrorKind] = "content_filtered"
    elsewhere: ClassVar[bool] = False


class TurnStopped(GatewayError):
    """A running turn was ended by something other than its model."""

    kind: ClassVar[ErrorKind] = "cancelled"


class Cancelled(TurnStopped):
    """The client went away."""


class Deadline(TurnStopped):
    """The turn passed `turn_s`."""

    kind: ClassVar[ErrorKind] = "deadline"
    status: ClassVar[int] = 504


class Drained(TurnStopped):
    """The worker stopped before the turn was over."""

    kind: ClassVar[ErrorKind] = "drained"
    status: ClassVar[int] = 503


class Internal(GatewayError):
    """A fault of this program; the log line with the same request id has the reason."""
