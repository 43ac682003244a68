"""Writing server-sent events (WHATWG HTML, section 9.2.5).

Data is one line: JSON without white space never has a line end. A keep-alive is a comment.
"""

from typing import Final

MEDIA_TYPE: Final = "text/event-stream"
BEFORE: Final = "data: "
AFTER: Final = "\n\n"
KEEP_ALIVE: Final = b": keep-alive\n\n"


def event(name: str, data: str) -> bytes:
    """An event with a name; `data` is ASCII JSON of one line."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def message(data: str) -> bytes:
    """An event without a name; `data` as in `event`."""
    return f"data: {data}\n\n".encode()
