"""Server-sent events as the WHATWG standard reads them (HTML, section 9.2.6)."""


class EventStream:
    """Bytes in, `(event name, data)` out at every empty line."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self.comments: list[str] = []

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        events: list[tuple[str, str]] = []
        for byte in chunk:
            if byte == 0x0A and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = byte == 0x0D
            if byte not in (0x0A, 0x0D):
                self._line.append(byte)
                continue
            line = self._line.decode()
            self._line.clear()
            if line:
                self._field(line)
            elif self._data:
                events.append((self._name or "message", "\n".join(self._data)))
                self._name, self._data = "", []
            else:
                self._name = ""
        return events

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments.append(value)
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)

    def close(self) -> None:
        assert not self._line, "the stream ends inside a line"
        assert not self._data, "the stream ends inside an event"
