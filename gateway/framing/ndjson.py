"""Newline-delimited JSON: one value, one `\\n`.

A keep-alive is an empty line, which readers of this format skip.
"""

from typing import Final

MEDIA_TYPE: Final = "application/x-ndjson; charset=utf-8"
BEFORE: Final = ""
AFTER: Final = "\n"
KEEP_ALIVE: Final = b"\n"
