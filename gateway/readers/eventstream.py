"""Server-sent events as the WHATWG standard reads them (HTML, section 9.2.6)."""

from gateway.readers import MAX_RECORD, demand


class EventStream:
    """Bytes in, `(event name, data)` out at every empty line; `comments` are kept apart."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self._parts: list[bytes] = []
        self._held = 0
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that `chunk` ends."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *more = chunk.split(b"\n")
        self._parts.append(first)
        self._held += len(first)
        demand(self._held <= MAX_RECORD, "an event has no end")
        if not more:
            return []
        lines = [b"".join(self._parts), *more]
        self._parts = [lines.pop()]
        self._held = len(self._parts[0]) + sum(map(len, self._data))
        return self._read(lines)

    def _read(self, lines: list[bytes]) -> list[tuple[str, str]]:
        events: list[tuple[str, str]] = []
        for line in lines:
            if line:
                self._field(line)
            elif self._data:
                events.append((self._name or "message", "\n".join(self._data)))
                self._name, self._data = "", []
            else:
                self._name = ""
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif not name:
            self.comments.append(value)

    def close(self) -> None:
        """The body is over."""
        demand(not any(self._parts), "the stream ends inside a line")
        demand(not self._data, "the stream ends inside an event")
