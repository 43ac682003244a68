"""A model whose answer is a recording, cut short: `ports.Model` without a socket.

The recording's own codec decodes the bytes, as `transport.stream` would let it: read after read,
then the end. What it made of them is a `Tale`, which can be told to any number of turns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import GatewayError, Internal, UpstreamTimeout
from gateway.events import (
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
)
from gateway.messages import Price, Prompt
from gateway.ports.codecs import Decoder

# A decoder that neither finishes nor fails at its end would be asked for ever.
_ASKED_AT_THE_END: Final = 4
_SPEECH: Final = (TextDelta, ReasoningDelta, ToolCallStarted)
_CALLED: Final = (ToolCallEnded, ToolReturned)
NEVER_ENDS: Final = "the decoder neither finished nor failed at the end of its bytes"


@dataclass(frozen=True, slots=True)
class Tale:
    """What a decoder gave for some bytes and their end.

    `reads` are the events of each read; the last read has `ModelFinished`, or `failure` follows
    it. `fault` says what is wrong with the decoder itself.
    """

    reads: tuple[list[ModelEvent], ...]
    failure: GatewayError | None
    fault: str | None = None

    @property
    def text(self) -> str:
        """All text that was told."""
        return "".join(e.text for read in self.reads for e in read if type(e) is TextDelta)

    @property
    def spoke(self) -> bool:
        """Whether the model began to generate."""
        return any(isinstance(event, _SPEECH) for read in self.reads for event in read)

    @property
    def called(self) -> bool:
        """Whether a call was told whole."""
        return any(isinstance(event, _CALLED) for read in self.reads for event in read)

    def same_as(self, other: "Tale") -> bool:
        """Whether a turn could not tell the two apart."""
        return (
            self.reads == other.reads
            and type(self.failure) is type(other.failure)
            and self.fault == other.fault
        )


def tale(decoder: Decoder, pieces: Sequence[bytes], *, hush: bool = False) -> Tale:
    """Lets the decoder read the pieces and their end; with `hush` silence in place of the end.

    Silence after the model's last words is taken for the end, as `transport.stream` takes it.
    """
    reads: list[list[ModelEvent]] = []
    try:
        for piece in pieces:
            # An error that was found behind the last events is told before any more is read.
            decoder.feed(b"")
            if piece:
                reads.append(decoder.feed(piece))
                if _finished(reads):
                    return Tale(tuple(reads), None)
        if hush and not decoder.finishing:
            decoder.feed(b"")
            return Tale(tuple(reads), UpstreamTimeout())
        for _ in range(_ASKED_AT_THE_END):
            decoder.feed(b"")
            reads.append(decoder.close())
            if _finished(reads):
                return Tale(tuple(reads), None)
    except GatewayError as failure:
        return Tale(tuple(reads), failure)
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises is its fault
        return Tale(tuple(reads), Internal(), f"the decoder raised {type(error).__name__}")
    return Tale(tuple(reads), Internal(), NEVER_ENDS)


def _finished(reads: Sequence[list[ModelEvent]]) -> bool:
    return bool(reads[-1]) and type(reads[-1][-1]) is ModelFinished


class TellingModel:
    """The model of a case; `open_calls` counts streams that were not closed."""

    name = provider = model = "recording"
    context_tokens: int | None = None
    output_tokens: int | None = None
    first_token_s = idle_s = total_s = 60.0
    price: Price | None = None
    target = "recording"

    def __init__(self) -> None:
        self.told: Tale | None = None
        self.open_calls = 0

    async def place(self, *, last_resort: bool = True) -> "TellingModel":
        """Itself: there is always room."""
        return self

    async def send(
        self, prompt: Prompt, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> "_TellingStream":
        """A stream that tells the tale."""
        if self.told is None:
            raise Internal("no tale was lined up")
        self.open_calls += 1
        return _TellingStream(self.told, self._closed)

    def began(self) -> None:
        """Nothing depends on it here."""

    def end(self, error: GatewayError | None) -> None:
        """Nothing is given back; streams are counted when they close."""

    async def again(self, error: GatewayError) -> None:
        """Never: a tale is told as it is."""

    def _closed(self) -> None:
        self.open_calls -= 1


class _TellingStream:
    __slots__ = ("_on_close", "_place", "_tale")

    def __init__(self, told: Tale, on_close: Callable[[], None]) -> None:
        self._tale = told
        self._place = 0
        self._on_close: Callable[[], None] | None = on_close

    async def read(self) -> list[ModelEvent]:
        place = self._place
        self._place += 1
        if place < len(self._tale.reads):
            return list(self._tale.reads[place])
        raise self._tale.failure or Internal("read after the model had finished")

    async def close(self) -> None:
        if self._on_close is not None:
            self._on_close()
            self._on_close = None
