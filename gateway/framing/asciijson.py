"""JSON in ASCII, for clients that parse each read as a whole.

Text beyond ASCII is written as `\\uXXXX` (RFC 8259 section 7), so no cut of the bytes splits a
character, no wrong charset garbles one, and no line reader takes U+0085 or U+2028 for a line end.
"""

from json import JSONEncoder
from json.encoder import encode_basestring_ascii
from typing import Final

import orjson

RECORD_BYTES: Final = 16 * 1024
"""A record under this size fits one DATA frame of HTTP/2's default size (RFC 9113, 4.2)."""

PIECE_BYTES: Final = 12 * 1024 + 2
"""The most that the text of one record takes, quotes included; the rest is for its frame."""

SHORT_TEXT: Final = 1024
"""Code points that always fit `PIECE_BYTES`: twelve bytes each at the most, and the quotes."""

quote: Final = encode_basestring_ascii
_COMPACT: Final = JSONEncoder(separators=(",", ":"), allow_nan=False)


def dumps(value: object) -> str:
    """The value as compact JSON."""
    return _COMPACT.encode(value)


def json_or_string(text: str) -> str:
    """Text that may be JSON, as one JSON value: itself if it is, else a string of it."""
    try:
        return dumps(orjson.loads(text))
    except (ValueError, RecursionError):
        return quote(text)


def pieces(text: str, limit: int = PIECE_BYTES) -> list[str]:
    """The text as quoted strings of at most `limit` bytes each, which joined give it back."""
    quoted = quote(text)
    if len(quoted) <= limit or len(text) < 2:
        return [quoted]
    middle = len(text) // 2
    return pieces(text[:middle], limit) + pieces(text[middle:], limit)


def clip(text: str, limit: int) -> str:
    """The text's beginning whose quoted form has at most `limit` bytes; "…" ends a cut one."""
    if len(quote(text)) <= limit:
        return text
    short, long = 0, len(text)
    while long - short > 1:
        middle = (short + long) // 2
        if len(quote(text[:middle])) <= limit - len("\\u2026"):
            short = middle
        else:
            long = middle
    return text[:short] + "…"
