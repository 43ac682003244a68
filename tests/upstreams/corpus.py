"""The recorded and made-up streams of `gateway certify`, and what they mean.

`<case>.sse` of `gateway/certify/streams` has the bytes of one answer, `<case>.jsonl` here the
events that they mean, one a line; the last line is `ModelFinished`, or an `error` with its class.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.certify.recordings import FOLDER
from gateway.errors import GatewayError
from gateway.events import ModelEvent
from gateway.messages import Usage
from gateway.ports.codecs import Decoder

MEANINGS = Path(__file__).parent / "streams"

Row = dict[str, object]


@dataclass(frozen=True)
class Case:
    """One stream and the events that it means."""

    name: str
    stream: bytes
    rows: list[Row]


def cases(provider: str) -> list[Case]:
    """Every stream of a provider, with what it means."""
    found = []
    for path in sorted((FOLDER / provider).glob("*.sse")):
        meaning = MEANINGS / provider / f"{path.stem}.jsonl"
        lines = meaning.read_text("utf-8").splitlines()
        found.append(Case(path.stem, path.read_bytes(), [json.loads(line) for line in lines]))
    return found


def row(event: ModelEvent) -> Row:
    """An event as it is written in a `.jsonl` file."""
    values = ((name, getattr(event, name)) for name in event.__slots__)
    return {"event": type(event).__name__} | {
        name: dataclasses.asdict(value) if isinstance(value, Usage) else value
        for name, value in values
    }


def decode(decoder: Decoder, chunks: Iterable[bytes]) -> list[Row]:
    """What a decoder makes of the chunks and the end that follows them, as a client would."""
    rows = feed(decoder, chunks)
    return rows + end(decoder, rows)


def end(decoder: Decoder, told: Sequence[Row]) -> list[Row]:
    """What the end adds to what a decoder has told so far: nothing after an error."""
    rows: list[Row] = []
    if told and "error" in told[-1]:
        return rows
    try:
        # An error that was found behind events comes with the next call.
        for _ in range(2):
            rows += [row(event) for event in decoder.close()]
    except GatewayError as error:
        rows.append({"error": type(error).__name__})
    return rows


def feed(decoder: Decoder, chunks: Iterable[bytes]) -> list[Row]:
    """What a decoder makes of the chunks alone."""
    rows: list[Row] = []
    try:
        for chunk in (*chunks, b""):
            rows += [row(event) for event in decoder.feed(chunk)]
    except GatewayError as error:
        rows.append({"error": type(error).__name__})
    return rows


def single_bytes(stream: bytes) -> list[bytes]:
    """The stream, a byte at a time."""
    return [stream[place : place + 1] for place in range(len(stream))]
