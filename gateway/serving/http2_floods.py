"""How much of what costs the server more than the client one HTTP/2 connection may send.

Each bucket holds what no good client ever needs at once and refills at a rate that none needs for
long; who empties one gets GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 section 7). Sources: CVE-2023-
44487 (rapid reset), CVE-2025-8671 (resets that the client makes the server send), CVE-2019-9511
to 9518 (floods of single kinds of frame), Envoy's defaults for the rest.
"""

from collections.abc import Callable
from typing import Final

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

_FAULTS: Final = (100, 10.0)  # burst, refill per second
_CONTROL: Final = (400, 40.0)
_EMPTY: Final = (10, 1.0)
_TINY: Final = (2000, 200.0)
_TINY_BYTES: Final = 16
_PRIORITY_PER_STREAM: Final = 100
_CONTINUATIONS: Final = 8


class Flood(ProtocolError):
    """The client sent more of something than any good client does."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM


class Bucket:
    """Tokens that refill with time; `clock` gives seconds."""

    __slots__ = ("_burst", "_clock", "_left", "_per_s", "_seen")

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float]) -> None:
        self._burst = self._left = burst
        self._per_s = per_s
        self._clock = clock
        self._seen = clock()

    def take(self) -> bool:
        """Takes a token; False if there is none."""
        if self._left < 1:
            now = self._clock()
            self._left = min(self._burst, self._left + (now - self._seen) * self._per_s)
            self._seen = now
            if self._left < 1:
                return False
        self._left -= 1
        return True


class Floods:
    """The counts of one connection. Every check raises `Flood`.

    `data_sent` is the number of DATA frames that went out; the connection counts it here.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.data_sent = 0
        self._faults = Bucket(*_FAULTS, clock)
        self._control = Bucket(*_CONTROL, clock)
        self._empty = Bucket(*_EMPTY, clock)
        self._tiny = Bucket(*_TINY, clock)
        self._opened = 0
        self._priorities = 0
        self._window_updates = 0
        self._calm = True

    def received(self, frame: Frame) -> None:
        """A whole frame came in; header blocks come as one frame, however many they took."""
        if isinstance(frame, DataFrame):
            self._data(frame)
        elif isinstance(frame, WindowUpdateFrame):
            self._window_updates += 1
            allowed = 5 + 2 * (self._opened + 10 * self.data_sent)
            self._require(self._window_updates <= allowed, "WINDOW_UPDATE frames")
        elif isinstance(frame, HeadersFrame):
            self._opened += 1
            if not frame.data:
                self._require(self._empty.take(), "empty frames")
        elif isinstance(frame, RstStreamFrame):
            self.fault()
        else:
            self._other(frame)
        self.check()

    def continuation(self, number: int, size: int) -> None:
        """The `number`th CONTINUATION frame of a header block came in."""
        self._require(number <= _CONTINUATIONS, "CONTINUATION frames")
        if not size:
            self._require(self._empty.take(), "empty frames")

    def late(self) -> None:
        """A DATA frame came for a stream that is closed."""
        self._require(self._tiny.take(), "DATA frames for closed streams")

    def fault(self) -> None:
        """A stream was reset, by either side, or a request refused; `check` raises for it."""
        self._calm = self._faults.take() and self._calm

    def check(self) -> None:
        """Raises `Flood` after too many faults."""
        self._require(self._calm, "faults and resets")

    def _data(self, frame: DataFrame) -> None:
        size = len(frame.data)
        if size < _TINY_BYTES and "END_STREAM" not in frame.flags:
            self._require(self._tiny.take(), "tiny DATA frames")
            if not size:
                self._require(self._empty.take(), "empty frames")

    def _other(self, frame: Frame) -> None:
        if isinstance(frame, PriorityFrame):
            self._priorities += 1
            allowed = _PRIORITY_PER_STREAM * (1 + self._opened)
            self._require(self._priorities <= allowed, "PRIORITY frames")
        self._require(self._control.take(), "control frames")

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise Flood(f"too many {what}")
