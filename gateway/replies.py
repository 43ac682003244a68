"""What the answers of all dialects have in common: JSON bodies, error rows, waiting times.

A dialect has its own table from the kind of an error to a status and a text. `row` names the kind
whose row such a table uses for a kind that normally shows up only inside a stream. JSON is
written in ASCII, so no client can read it in the wrong encoding.

`Retry-After` is RFC 9110 section 10.2.3, always whole seconds.
"""

from datetime import UTC, datetime
from json import JSONEncoder
from math import ceil
from typing import Final

from gateway.errors import ERROR_KINDS, ErrorKind, GatewayError, HttpError
from gateway.messages import Reply

JSON_TYPE: Final = "application/json; charset=utf-8"

_LONGEST_WAIT_S: Final = 3600
_WAIT_S: Final[dict[ErrorKind, int]] = {
    "rate_limited": 1,
    "upstream_rate_limited": 5,
    "upstream_unavailable": 5,
    "overloaded": 5,
    "draining": 5,
    "store_unavailable": 5,
}
_ROW: Final[dict[ErrorKind, ErrorKind]] = {
    "context_length": "payload_too_large",
    "truncated": "upstream_error",
    "content_filtered": "upstream_error",
    "deadline": "upstream_timeout",
    "cancelled": "draining",
    "drained": "draining",
}
_HTTP_TEXT: Final[dict[int, str]] = {
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    414: "Request address too long",
    415: "Unsupported media type",
    431: "Request header fields too large",
}
TEXTS: Final[dict[ErrorKind, str]] = {
    "bad_request": "the request is not as documented: check its headers and its body",
    "unauthorized": "missing or unknown API key",
    "forbidden": "this key is not allowed on this route or from this origin",
    "not_found": "not found: check the id",
    "conflict": "another turn is running or the conversation has ended: wait or start a new one",
    "payload_too_large": "the message is too long: send a shorter one",
    "rate_limited": "too many requests: wait before the next one",
    "upstream_error": "the model could not answer: try again",
    "upstream_rate_limited": "the model is busy: try again later",
    "upstream_unavailable": "the model is not available: try again later",
    "upstream_timeout": "the model took too long: try again or ask for less",
    "overloaded": "too many turns are running: try again later",
    "draining": "this server is about to stop: try again",
    "store_unavailable": "conversations are not available: try again later",
    "internal": "internal error: try again, and report the request id if it stays",
    "content_filtered": "the model's provider refused the content: rephrase the message",
    "context_length": "the message is too long for the model: send a shorter one",
    "truncated": "the model's reply was cut short: try again",
    "cancelled": "the turn was cancelled: try again",
    "deadline": "the turn took too long: try again or ask for less",
    "drained": "the server stopped before the turn was over: try again",
}
"""What a person reads of each kind, in dialects that leave the wording open: fixed, ASCII."""

PRE_STREAM_KINDS: Final = tuple(kind for kind in ERROR_KINDS if kind not in _ROW)
"""The kinds that have a row of their own."""

_COMPACT: Final = JSONEncoder(separators=(",", ":"), allow_nan=False)


def row(kind: ErrorKind) -> ErrorKind:
    """The kind whose row answers `kind` before a stream has begun; most kinds have their own."""
    return _ROW.get(kind, kind)


def http_text(error: HttpError) -> str:
    """The fixed text of a status that HTTP itself fixes."""
    return _HTTP_TEXT.get(error.http_status, "Bad request")


def retry_after(error: GatewayError) -> int | None:
    """Whole seconds, 1 to 3600, after which another try makes sense; None if none ever does."""
    wait = _WAIT_S.get(row(error.kind))
    if wait is None or error.retry_after is None:
        return wait
    return max(1, ceil(min(_LONGEST_WAIT_S, error.retry_after)))


def moment(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 text in UTC: `2026-01-31T12:00:00.000Z`."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def json_reply(status: int, body: object, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A whole answer with a JSON body that nobody stores and no browser takes for another type."""
    return Reply(
        status,
        (
            ("content-type", JSON_TYPE),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            *headers,
        ),
        _COMPACT.encode(body).encode("ascii"),
    )


def error_reply(
    error: GatewayError, status: int, body: object, headers: tuple[tuple[str, str], ...] = ()
) -> Reply:
    """The answer to a failed request: 429 and 503 carry `Retry-After`, an `HttpError` its headers.

    `status` and `body` are the dialect's own words for the error.
    """
    if status in (429, 503):
        headers += (("retry-after", str(retry_after(error) or 1)),)
    if isinstance(error, HttpError):
        headers += tuple((name.lower(), value) for name, value in error.headers.items())
    return json_reply(status, body, headers)
