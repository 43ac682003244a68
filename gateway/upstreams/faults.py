"""What an upstream's refusal means: status, code and type in, an error of `errors.py` out.

The classes are the same for every wire, because servers copy each other's codes. An upstream's own
words are looked at to tell a too long prompt from other bad requests, but never repeated: a message
names the status and, if it is a short word without digits, the upstream's code or type.

`Retry-After` is RFC 9110 section 10.2.3: seconds, or a date, which is read against the answer's own
`Date` (section 6.6.1), so that no clock is needed here and a wrong one does not matter.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import orjson

from gateway.errors import (
    ContentFiltered,
    ContextLength,
    GatewayError,
    UpstreamDenied,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.messages import Headers

MAX_RETRY_AFTER: Final = 10.0

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# No digits: what an upstream may quote by mistake, a key or an address, has some.
_WORD: Final = re.compile(r"[A-Za-z_.-]+")
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_FILTERED: Final = re.compile(r"content_?filter|content_policy|ResponsibleAIPolicy", re.IGNORECASE)
_TOO_LONG: Final = re.compile(
    r"context.?(?:length|size|window|limit)|(?:prompt|input|request).(?:is.)?too.(?:long|large)"
    r"|prompt.length|input.tokens?.(?:count|exceed)|model.token.limit|reduce.the.length",
    re.IGNORECASE,
)
_RATE: Final = re.compile(r"rate_?limit|too_many_requests|insufficient_quota", re.IGNORECASE)
_DOWN: Final = re.compile(r"overloaded|unavailable|insufficient_system", re.IGNORECASE)
_SLOW: Final = re.compile(r"timeout|timed_out", re.IGNORECASE)
_REJECTED: Final = re.compile(r"invalid_?request|bad_?request", re.IGNORECASE)
_CALLERS_FAULT: Final = (400, 403, 413, 422)
_DENIED: Final = (401, 402, 403, 404)


def identifier(value: object) -> str:
    """The value if it is a short identifier that is safe to log, else nothing."""
    text = str(value) if type(value) is int else value
    return text if isinstance(text, str) and _IDENTIFIER.fullmatch(text) else ""


def retry_after(headers: Headers) -> float | None:
    """The wait that an answer asks for, in seconds and at most ten; None if it asks for none."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name).strip()
        if _SECONDS.fullmatch(value):
            return min(float(value) / unit, MAX_RETRY_AFTER)
    return _until(headers.get("retry-after"), headers.get("date"))


def _until(date: str, now: str) -> float | None:
    try:
        wait = (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: only one of them has a zone
        return None
    return min(max(wait, 0.0), MAX_RETRY_AFTER)


def error_member(body: bytes) -> object:
    """The error inside an answer's body, which may be cut or not JSON; None if there is none."""
    try:
        payload: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if isinstance(payload, dict):
        return payload.get("error", payload)
    return None


def fault(status: int | None, error: object, *, wait: float | None = None) -> GatewayError:
    """The error for a refused call, or with no status for one reported inside a stream."""
    details: Mapping[object, object] = error if isinstance(error, dict) else {}
    code, kind = identifier(details.get("code")), identifier(details.get("type"))
    words = f"{code} {kind}"
    if status is None and code.isdecimal():
        # Some servers put the status, which they could no longer send, into the code.
        status = int(code)
    where = "in its stream" if status is None else str(status)
    named = next((word for word in (code, kind) if _WORD.fullmatch(word)), "")
    message = f"upstream answered an error {where}" + (f" ({named})" if named else "")
    if status is None or status in _CALLERS_FAULT:
        text = details.get("message")
        if _FILTERED.search(words) or _has_inner_filter(details):
            return ContentFiltered(message)
        # 413 has no other cause here: all that a call holds is its prompt.
        said = f"{words} {text[:2000]}" if isinstance(text, str) else words
        if status == 413 or _TOO_LONG.search(said):
            return ContextLength(message)
    return _by_status(status, words)(message, retry_after=wait)


def _by_status(status: int | None, words: str) -> type[UpstreamError]:
    if status == 429 or (status is None and _RATE.search(words)):
        return UpstreamRateLimited
    if status in (503, 529) or (status is None and _DOWN.search(words)):
        return UpstreamUnavailable
    if status in (408, 504) or (status is None and _SLOW.search(words)):
        return UpstreamTimeout
    if status in _DENIED:
        return UpstreamDenied
    if (status or 500) in range(400, 500) or (status is None and _REJECTED.search(words)):
        return UpstreamRejected
    return UpstreamError


def _has_inner_filter(details: Mapping[object, object]) -> bool:
    inner = details.get("innererror")
    return isinstance(inner, dict) and bool(_FILTERED.search(identifier(inner.get("code"))))
