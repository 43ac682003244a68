"""How an HTTP/2 client is told of its connection's end: GOAWAY in two steps (RFC 9113 section 6.8).

The first still takes new streams; the second, a moment later, names the last one that is taken.
Some clients take either for the end of their running streams too (h2, and so httpx): the first
step can wait until there is none. Then it comes in one write with the end of the last one, so that
such a client has heard of it before its next request.
"""

from collections.abc import Callable
from typing import Final

from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from gateway.serving.http2_outbox import Outbox

_EVERY_STREAM: Final = 2**31 - 1
_BETWEEN_S: Final = 1.0


class Farewell:
    """The two steps of one connection.

    `later` calls back after so many seconds while the connection is open; `stop` is the owner's,
    and has to lead to `end`. `last_stream` is the last one that is taken.
    """

    def __init__(
        self,
        outbox: Outbox,
        later: Callable[[float, Callable[[], None]], None],
        stop: Callable[[], None],
    ) -> None:
        self.last_stream = _EVERY_STREAM
        self._outbox = outbox
        self._later = later
        self._stop = stop
        self._wanted = self._begun = False

    @property
    def ended(self) -> bool:
        """Whether no new stream is taken."""
        return self.last_stream != _EVERY_STREAM

    def begin(self, wait_s: float) -> None:
        """Takes the first step, in `wait_s` seconds unless the connection is at rest before."""
        self._wanted = True
        if wait_s:
            self._later(wait_s, self.at_rest)
        else:
            self.at_rest()

    def at_rest(self) -> None:
        """No stream is in flight: takes the first step if it is still to be taken."""
        if self._wanted and not self._begun:
            self._begun = True
            self.say(_EVERY_STREAM)
            self._later(_BETWEEN_S, self._stop)

    def end(self, last_stream: int) -> None:
        """Takes the second step."""
        self._begun = True
        self.last_stream = last_stream
        self.say(last_stream)

    def say(self, last_stream: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Sends GOAWAY past h2, which takes nothing more from a client that it has said it to."""
        frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=code)
        self._outbox.flush(frame.serialize())
