"""Cuts a recording at every byte and plays every cut to every wire.

A part is a run of cuts of one recording, small enough to be handed to a process and to show
progress. Two cuts that the decoder tells alike cannot lead to different turns; in recordings over
`SHARED_BYTES` such neighbours share one turn, which is what makes long ones affordable.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.certify.case import Stage
from gateway.certify.judge import Expected, verdict
from gateway.certify.recordings import Protocol, Recording
from gateway.certify.truth import Truth
from gateway.certify.upstream import Tale, tale
from gateway.certify.wires import Wire
from gateway.errors import Truncated
from gateway.ports.codecs import Decoder
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.openai import OpenAI

SHARED_BYTES: Final = 8 * 1024
CUTS_IN_A_PART: Final = 256

DecoderMaker = Callable[[str], Decoder]
DECODERS: Final[Mapping[Protocol, DecoderMaker]] = {
    "openai": OpenAI().decoder,
    "anthropic": Anthropic().decoder,
}


@dataclass(frozen=True, slots=True)
class Part:
    """The cuts `begin` to `end`, without `end`, of one recording."""

    recording: Recording
    begin: int
    end: int


@dataclass(slots=True)
class Tally:
    """What came of some cases of one recording on one wire.

    `ends` is how the whole recording ends: "ok", or the kind of its error.
    """

    recording: str
    wire: str
    ends: str = ""
    cases: int = 0
    failed: int = 0
    first_cut: int = 0
    reason: str = ""

    def count(self, cut: int, wrong: str | None) -> None:
        """Adds a case; cuts come in rising order."""
        self.cases += 1
        if wrong is not None:
            if not self.failed:
                self.first_cut, self.reason = cut, wrong
            self.failed += 1

    def add(self, other: "Tally") -> None:
        """Adds the cases of another part."""
        if other.failed and (not self.failed or other.first_cut < self.first_cut):
            self.first_cut, self.reason = other.first_cut, other.reason
        self.cases += other.cases
        self.failed += other.failed


def parts(recording: Recording) -> list[Part]:
    """All cuts of a recording: before its first byte, after every byte."""
    cuts = len(recording.data) + 1
    return [
        Part(recording, begin, min(begin + CUTS_IN_A_PART, cuts))
        for begin in range(0, cuts, CUTS_IN_A_PART)
    ]


class Sweep:
    """One recording on some wires; lives inside a running loop."""

    def __init__(
        self, recording: Recording, wires: Sequence[Wire], make: DecoderMaker | None = None
    ) -> None:
        self._recording = recording
        self._make = make or DECODERS[recording.protocol]
        self._truth = Truth(recording)
        self._whole = whole = tale(self._make(recording.content_type), [recording.data])
        self._ends = "ok" if whole.failure is None else whole.failure.kind
        # A decoder may find a stream malformed, but not one too short that has its end.
        short = isinstance(whole.failure, Truncated) and self._truth.at(len(recording.data)).whole
        self._good = whole.failure is None or short
        self._stages = [(wire, Stage(wire)) for wire in wires]
        self._shares = len(recording.data) > SHARED_BYTES

    async def play(self, cuts: Sequence[int]) -> list[Tally]:
        """Plays the cuts, in rising order."""
        name = self._recording.name
        tallies = [Tally(name, wire.name, self._ends) for wire, _ in self._stages]
        last: dict[int, tuple[Expected, list[str | None]]] = {}
        for cut in cuts:
            told = self._tale(cut)
            facts = self._truth.at(cut)
            known, wrongs = last.get(cut % 2, (None, []))
            alike = known is not None and known.facts == facts and known.told.same_as(told)
            if not (self._shares and alike):
                known = Expected(facts, told, self._whole.text, self._good)
                wrongs = [
                    verdict(wire, known, await stage.play(told)) for wire, stage in self._stages
                ]
                last[cut % 2] = known, wrongs
            for tally, wrong in zip(tallies, wrongs, strict=True):
                tally.count(cut, wrong)
        return tallies

    def _tale(self, cut: int) -> Tale:
        """The cut as a decoder tells it: even ones come in one read, odd ones event by event."""
        data = self._recording.data[:cut]
        pieces = [data] if cut % 2 == 0 else _by_event(data)
        return tale(self._make(self._recording.content_type), pieces)


def _by_event(data: bytes) -> list[bytes]:
    """The bytes as a server writes them: a write for each event."""
    begin, pieces = 0, []
    while (end := data.find(b"\n\n", begin)) >= 0:
        pieces.append(data[begin : end + 2])
        begin = end + 2
    return [*pieces, data[begin:]]


@contextmanager
def silence() -> Iterator[None]:
    """Keeps the gateway's log lines to itself: thousands of turns fail on purpose."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
