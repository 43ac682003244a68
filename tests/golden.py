"""Golden transcripts: the exact response body of every wire for every case.

A case is a turn, as canonical events, one JSON object a line: `transcripts/cases/<case>.jsonl`.
A wire is a dialect in one framing; its transcript of a case is all records of the body joined:
`transcripts/<dialect>/<case>.<suffix>`. `make golden` writes them, tests only compare, and a
changed one is read as a diff.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args

from gateway.certify import wires
from gateway.errors import GatewayError
from gateway.events import CitationFound, TurnEvent, TurnFailed
from gateway.messages import DialectOptions, TurnContext, Usage
from gateway.ports.codecs import Dialect, Encoder
from gateway.readers import Reader

FOLDER: Final = Path(__file__).parent / "transcripts"
REFUSAL: Final = "I can't help with that."

_PLAIN: Final = DialectOptions()
_EVENTS: Final = {kind.__name__: kind for kind in get_args(TurnEvent)}


@dataclass(frozen=True)
class Wire:
    """A dialect in one framing, with the reader that a client of it would have."""

    dialect: Dialect
    framing: str
    suffix: str
    reader: Callable[[], Reader]
    options: DialectOptions = _PLAIN

    @property
    def name(self) -> str:
        return f"{self.dialect.name}-{self.suffix}"

    def encoder(self) -> Encoder:
        return self.dialect.encoder(context(self.framing, self.options))

    def records(self, events: Sequence[TurnEvent]) -> list[bytes]:
        """What a client gets of the turn: a stream's records, or the one body."""
        encoder = self.encoder()
        records = [record for event in events for record in encoder.encode(event)]
        last = events[-1]
        if encoder.one_shot and isinstance(last, TurnFailed):
            return [self.dialect.encode_error(error_of(last.kind)).body]
        return records

    def transcript(self, case: str) -> Path:
        return FOLDER / self.dialect.name / f"{case}.{self.suffix}"


SUFFIXES: Final = {
    "hyponema sse": "sse",
    "hyperleap array": "array.json",
    "hyperleap array +tools": "array-tools.json",
    "hyperleap sse": "sse",
    "hyperleap ndjson": "ndjson",
    "hyperleap one-shot": "one-shot.json",
    "widget ndjson": "ndjson",
    "widget one-shot": "one-shot.json",
    "helper data-stream": "data-stream.txt",
    "helper data-stream +tools": "data-stream-tools.txt",
    "helper data-stream-early": "data-stream-early.txt",
    "helper ui-message-stream": "ui-message-stream.sse",
}
WIRES: Final = tuple(
    Wire(it.dialect, it.framing, SUFFIXES[it.name], it.reader, it.options) for it in wires.WIRES
)


def context(framing: str, options: DialectOptions = _PLAIN) -> TurnContext:
    """The ids and the model of every transcript."""
    return TurnContext(
        turn_id="0d9b6a52-6a3c-4c0e-9f0e-1b7a2c3d4e5f",
        run_id="7f1c2e88-52d4-4f6b-8a51-3e9d0c6b7a12",
        message_id="3c90c3cc-0d44-4b50-8888-8dd25736052a",
        conversation_id="j97ch2kj8xm6rpct8te5w9b1fh6pc7k8",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        model="small-1",
        framing=framing,
        created_at=1_790_000_000,
        refusal=REFUSAL,
        options=options,
    )


def cases() -> list[str]:
    """The names of all cases."""
    return sorted(path.stem for path in (FOLDER / "cases").glob("*.jsonl"))


def load(case: str) -> list[TurnEvent]:
    """A case's events."""
    text = (FOLDER / "cases" / f"{case}.jsonl").read_text(encoding="utf-8")
    return [_event(json.loads(line)) for line in text.split("\n") if line]


def dump(events: Sequence[TurnEvent]) -> str:
    """Events as the text of a case."""
    lines = ({"type": type(event).__name__, **asdict(event)} for event in events)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def error_of(kind: str) -> GatewayError:
    """An error of that kind."""
    return next(error for error in _all_errors(GatewayError) if error.kind == kind)()


def _all_errors(root: type[GatewayError]) -> list[type[GatewayError]]:
    return [root, *(error for child in root.__subclasses__() for error in _all_errors(child))]


def _event(members: dict[str, object]) -> TurnEvent:
    kind = _EVENTS[str(members.pop("type"))]
    if isinstance(usage := members.get("usage"), dict):
        members["usage"] = Usage(**usage)
    if isinstance(citations := members.get("citations"), list):
        members["citations"] = tuple(CitationFound(**found) for found in citations)
    event: TurnEvent = kind(**members)
    return event


def write() -> None:
    """Writes every transcript and removes those that no wire or case has any more."""
    wanted: set[Path] = set()
    for wire in WIRES:
        for case in cases():
            path = wire.transcript(case)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(wire.records(load(case))))
            wanted.add(path)
    for path in existing() - wanted:
        path.unlink()


def existing() -> set[Path]:
    """The transcripts that are there."""
    folders = {FOLDER / wire.dialect.name for wire in WIRES}
    return {path for folder in folders for path in folder.glob("*") if path.is_file()}


if __name__ == "__main__":
    write()
