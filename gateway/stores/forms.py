"""How the stores write what has no column of its own: terms, tool calls, and cursors.

Terms are JSON. A cursor is `<seconds>:<key>`, the place of the last conversation of a page in an
order by (time, key); it means the same for as long as nobody writes to that conversation.
"""

import re
from typing import Final

import orjson

from gateway.errors import BadRequest, FieldIssue
from gateway.messages import NO_TERMS, KeptCall, Terms

# 18 digits fit SQLite's integers; the shortest text of a float has at most 17.
_CURSOR: Final = re.compile(r"([0-9]{1,12}\.[0-9]{1,17}):([0-9]{1,18})")


def encode_terms(terms: Terms) -> str:
    """The terms as JSON, "" for none."""
    if terms == NO_TERMS:
        return ""
    return orjson.dumps(
        {
            "agent": terms.agent,
            "variables": dict(terms.variables),
            "expires_at": terms.expires_at,
            "details": dict(terms.details),
        }
    ).decode()


def decode_terms(text: str) -> Terms:
    """The terms that `encode_terms` wrote."""
    return Terms(**orjson.loads(text)) if text else NO_TERMS


def encode_calls(calls: tuple[KeptCall, ...]) -> str | None:
    """`[[id, name, arguments, result], …]` as JSON, None for none."""
    return orjson.dumps([list(call) for call in calls]).decode() if calls else None


def decode_calls(text: str | None) -> tuple[KeptCall, ...]:
    """The calls that `encode_calls` wrote."""
    return tuple(KeptCall(*call) for call in orjson.loads(text)) if text else ()


def encode_cursor(updated_at: float, number: int) -> str:
    """The place of a conversation; `updated_at` in seconds since the epoch."""
    return f"{updated_at!r}:{number}"


def decode_cursor(cursor: str) -> tuple[float, int]:
    """What `encode_cursor` was given. Raises `BadRequest`."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequest("the cursor is malformed", issues=(FieldIssue("cursor", "is malformed"),))
    return float(match[1]), int(match[2])
