"""One log line: fields in, one JSON object (RFC 8259) and a line feed out.

ASCII without control characters, whatever the values hold, at most 200 characters per value and
4096 bytes in all.
Members with a secret's name are redacted, values of unknown types show their type only, and
exceptions show type and place but neither message nor local variables: both may hold what a
client or an upstream said. `ts` is UTC in RFC 3339.
"""

import errno
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from traceback import walk_tb
from typing import Final

import orjson

from gateway.errors import GatewayError

_VALUE_CHARACTERS: Final = 200
_ITEMS: Final = 20
_DEPTH: Final = 4
_FRAMES: Final = 12
_CAUSES: Final = 2

_SECRET: Final = frozenset(
    {
        "authorization",
        "proxy_authorization",
        "x_api_key",
        "x_widget_api_key",
        "x_hl_api_key",
        "api_key",
        "cookie",
        "set_cookie",
        "secret",
        "password",
        "text",
        "message",
        "content",
        "token",
        "arguments",
        "result",
    }
)
_REDACTED: Final = "[redacted]"
_TOO_LONG: Final = "[too long]"

LINE_BYTES: Final = 4096
"""What a pipe takes in one piece (PIPE_BUF of Linux), so lines of several processes stay whole."""


def encode_line(fields: Mapping[str, object]) -> bytes:
    """The fields as one line, with the time; `level` and `event` come first."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    line: dict[str, object] = {
        "ts": now.replace("+00:00", "Z"),
        "level": fields.get("level"),
        "event": fields.get("event"),
    }
    line |= fields
    encoded = _json_line(_redact(line))
    while len(encoded) > LINE_BYTES:
        longest = max(line, key=lambda name: len(_json_line({name: _cut(line[name], 0)})))
        line[longest] = _TOO_LONG
        encoded = _json_line(_redact(line))
    return encoded


def _redact(fields: Mapping[str, object], depth: int = 0) -> dict[str, object]:
    clean: dict[str, object] = {}
    for key, value in fields.items():
        if key in _SECRET or key.lower().replace("-", "_") in _SECRET:
            clean[key] = _REDACTED
        elif value is None or type(value) is int:
            clean[key] = value
        else:
            clean[key] = _cut(value, depth)
    return clean


def _cut(value: object, depth: int) -> object:
    if isinstance(value, str):
        return value if len(value) <= _VALUE_CHARACTERS else value[:_VALUE_CHARACTERS]
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, int):
        return value
    if depth < _DEPTH and isinstance(value, Mapping):
        return _redact({str(k)[:_VALUE_CHARACTERS]: v for k, v in value.items()}, depth + 1)
    if depth < _DEPTH and isinstance(value, (list, tuple)):
        return [_cut(item, depth + 1) for item in value[:_ITEMS]]
    # A repr may hold anything.
    return f"<{type(value).__name__}>"


def _json_line(fields: dict[str, object]) -> bytes:
    try:
        line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate, or an integer over 64 bits
        line = b""
    # orjson leaves DEL and the C1 controls as they are, and terminals obey them.
    if line and line.isascii() and b"\x7f" not in line:
        return line
    return json.dumps(fields).replace("\x7f", "\\u007f").encode("ascii") + b"\n"


def exception_fields(error: BaseException, depth: int = 0) -> dict[str, object]:
    """What may be told of an exception: its type, its place, and the same of its causes."""
    kind = type(error)
    places = [
        f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}:{line}"
        for frame, line in walk_tb(error.__traceback__)
    ]
    shown: dict[str, object] = {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "at": places[-_FRAMES:],
    }
    if isinstance(error, GatewayError):
        shown["kind"] = error.kind
    elif isinstance(error, OSError) and error.errno is not None:
        shown["errno"] = errno.errorcode.get(error.errno)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < _CAUSES:
        shown["cause"] = exception_fields(cause, depth + 1)
    if isinstance(error, BaseExceptionGroup) and depth < _CAUSES:
        shown["of"] = [exception_fields(part, depth + 1) for part in error.exceptions[:_CAUSES]]
    return shown
