"""One JSON array, sent while it grows: `[item`, then `,item` for each further one, then `]`.

A keep-alive is white space between two items (RFC 8259 section 2). The whole body is one JSON
text, and each record is readable alone once its first character is taken off.
"""

from typing import Final

MEDIA_TYPE: Final = "application/json; charset=utf-8"
FIRST: Final = "["
BEFORE: Final = ","
AFTER: Final = ""
CLOSE: Final = b"]"
KEEP_ALIVE: Final = b"\n"
