from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.certify import recordings
from gateway.certify.recordings import Recording
from gateway.certify.sweep import DecoderMaker, Sweep, Tally, silence
from gateway.certify.wires import WIRES, Wire
from gateway.errors import Truncated
from gateway.events import (
    ModelEvent,
    ModelFinished,
    TextDelta,
    ToolCallStarted,
    TurnEvent,
    TurnFailed,
    TurnFinished,
)
from gateway.messages import Usage
from gateway.ports.codecs import Encoder
from tests.certify.planted import Fault, FaultyDecoder, wire, with_fault

RECORDINGS = {recording.name: recording for recording in recordings.shipped()}
TEXT = RECORDINGS["openai/text"]
EVERYTHING = RECORDINGS["openai/everything"]
SERVER_TOOL = RECORDINGS["anthropic/everything"]
HIDDEN_USAGE = RECORDINGS["openai/usage_absent"]


async def judged(
    recording: Recording, wires: Sequence[Wire], make: DecoderMaker | None = None, step: int = 7
) -> list[Tally]:
    with silence():
        return await Sweep(recording, wires, make).play(range(0, len(recording.data) + 1, step))


async def reason(recording: Recording, wire: Wire, make: DecoderMaker | None = None) -> str:
    tally = (await judged(recording, [wire], make))[0]
    assert tally.failed
    return tally.reason


# An encoder's


def twice(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    records = encoder.encode(event)
    return [*records, *records] if isinstance(event, TurnFailed | TurnFinished) else records


def never(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    records = encoder.encode(event)
    return () if isinstance(event, TurnFailed) else records


def always_good(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    if isinstance(event, TurnFailed):
        event = TurnFinished("", "stop", None, event.latency_ms, ())
    return encoder.encode(event)


def less_text(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    if isinstance(event, TextDelta):
        event = TextDelta(event.text[:-1] or "?")
    return encoder.encode(event)


def zero_usage(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    if isinstance(event, TurnFinished) and event.usage is None:
        event = replace(event, usage=Usage(0, 0))
    return encoder.encode(event)


def no_usage(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    if isinstance(event, TurnFinished):
        event = replace(event, usage=None)
    return encoder.encode(event)


def open_part(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    records = encoder.encode(event)
    return [record for record in records if b'"text-end"' not in record]


def open_call(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    records = encoder.encode(event)
    if isinstance(event, TurnFailed):
        return [r for r in records if not r.startswith(b"a:") and b"tool-output" not in r]
    return records


def open_step(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    return [record for record in encoder.encode(event) if not record.startswith(b"e:")]


def crash(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
    if type(event) is ToolCallStarted:
        raise RuntimeError("planted")
    return encoder.encode(event)


STREAMS = [wire.name for wire in WIRES if wire.framing != "one-shot"]


@pytest.mark.parametrize("name", STREAMS)
async def test_two_terminal_records_are_found_on_every_stream(name: str) -> None:
    assert await reason(TEXT, with_fault(name, twice))


@pytest.mark.parametrize("name", STREAMS)
async def test_a_missing_terminal_record_is_found_on_every_stream(name: str) -> None:
    assert await reason(TEXT, with_fault(name, never))


@pytest.mark.parametrize("name", STREAMS)
async def test_a_cut_stream_that_ends_as_good_is_found_on_every_stream(name: str) -> None:
    assert await reason(TEXT, with_fault(name, always_good))


@pytest.mark.parametrize(
    ("name", "fault", "recording", "expected"),
    [
        ("hyponema sse", twice, TEXT, "an event after the terminal one"),
        ("widget ndjson", never, TEXT, "0 terminal records"),
        ("widget ndjson", always_good, TEXT, "a truncated stream ended as good"),
        ("hyperleap array", always_good, TEXT, "a truncated stream ended as good"),
        ("helper ui-message-stream", open_part, TEXT, "a step or the message ends while a part"),
        ("helper ui-message-stream", open_call, EVERYTHING, "an error while a tool call is open"),
        ("helper data-stream +tools", open_call, SERVER_TOOL, "a tool call was left open"),
        ("helper data-stream", open_step, TEXT, "the message ends inside a step"),
        ("hyponema sse", less_text, TEXT, "the text is not what the model"),
        ("widget ndjson", less_text, TEXT, "the text is not what the model"),
        ("hyponema sse", zero_usage, HIDDEN_USAGE, "usage was made up"),
        ("helper ui-message-stream", zero_usage, HIDDEN_USAGE, "usage was made up"),
        ("hyperleap one-shot", no_usage, TEXT, "usage is not what the upstream stated"),
        ("hyponema sse", crash, EVERYTHING, "the gateway failed by a fault of its own"),
    ],
)
async def test_an_encoders_fault_is_named(
    name: str, fault: Fault, recording: Recording, expected: str
) -> None:
    assert (await reason(recording, with_fault(name, fault))).startswith(expected)


async def test_a_fault_of_one_wire_is_not_held_against_another() -> None:
    faulty, sound = await judged(TEXT, [with_fault("hyponema sse", twice), wire("widget ndjson")])
    assert (faulty.wire, bool(faulty.failed)) == ("hyponema sse", True)
    assert (sound.wire, sound.failed) == ("widget ndjson", 0)


async def test_the_first_cut_that_fails_is_told() -> None:
    first = TEXT.data.index(b'"The"')
    with silence():
        sweep = Sweep(TEXT, [with_fault("hyponema sse", never)])
        tally = (await sweep.play(range(len(TEXT.data) + 1)))[0]
    # Up to the first text a cut is a refusal, which no encoder writes.
    assert first < tally.first_cut < TEXT.data.index(b"data:", first)


# A decoder's


class Invents(FaultyDecoder):
    def changed(self, events: list[ModelEvent]) -> list[ModelEvent]:
        return [
            replace(e, usage=Usage(1, 1)) if isinstance(e, ModelFinished) and not e.usage else e
            for e in events
        ]


class TakesCutsForEnds(FaultyDecoder):
    def cut(self, error: Truncated) -> list[ModelEvent]:
        return [ModelFinished("stop", None)]


class AddsAWord(FaultyDecoder):
    said = False

    def cut(self, error: Truncated) -> list[ModelEvent]:
        if self.said:
            raise error
        self.said = True
        return [TextDelta("…")]


class NeverEnds(FaultyDecoder):
    def feed(self, chunk: bytes) -> list[ModelEvent]:
        return super().feed(chunk) if chunk else []

    def cut(self, error: Truncated) -> list[ModelEvent]:
        return []


class Raises(FaultyDecoder):
    def cut(self, error: Truncated) -> list[ModelEvent]:
        raise KeyError


class TakesEndsForCuts(FaultyDecoder):
    def changed(self, events: list[ModelEvent]) -> list[ModelEvent]:
        return [event for event in events if not isinstance(event, ModelFinished)]

    def close(self) -> list[ModelEvent]:
        super().close()
        raise Truncated


@pytest.mark.parametrize("name", ["hyponema sse", "hyperleap one-shot", "helper data-stream"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Invents, "counted usage is not what the upstream stated"),
        (TakesCutsForEnds, "a truncated stream ended as good"),
        (NeverEnds, "the decoder neither finished nor failed at the end of its bytes"),
        (Raises, "the decoder raised KeyError"),
        (TakesEndsForCuts, "a whole stream ended as failed"),
    ],
)
async def test_a_decoders_fault_is_named(name: str, make: DecoderMaker, expected: str) -> None:
    assert await reason(HIDDEN_USAGE, wire(name), make) == expected


async def test_text_that_the_whole_reply_does_not_have_is_found() -> None:
    found = await reason(TEXT, wire("hyponema sse"), AddsAWord)
    assert found == "the text is no beginning of the whole reply"


# None


@pytest.mark.parametrize(
    "recording",
    [r for name, r in RECORDINGS.items() if name.endswith(("everything", "document"))],
    ids=lambda recording: recording.name,
)
async def test_sound_codecs_pass(recording: Recording) -> None:
    for tally in await judged(recording, WIRES, step=5):
        assert (tally.failed, tally.reason) == (0, "")
        assert tally.cases == len(range(0, len(recording.data) + 1, 5))


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
async def test_every_shipped_recording_passes_at_some_cuts(recording: Recording) -> None:
    cuts = sorted({len(recording.data) * place // 9 for place in range(10)})
    with silence():
        for tally in await Sweep(recording, WIRES).play(cuts):
            assert (tally.wire, tally.reason) == (tally.wire, "")


async def test_a_long_recording_shares_turns_and_comes_to_the_same_verdicts() -> None:
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 900 + b'"}}]}\n\n'
    end = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    recording = Recording("long", "openai", "text/event-stream", chunk * 10 + end)
    played: list[int] = []

    def counting(encoder: Encoder, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TurnFailed | TurnFinished):
            played.append(1)
        return twice(encoder, event) if isinstance(event, TurnFailed) else encoder.encode(event)

    tally = (await judged(recording, [with_fault("hyponema sse", counting)], step=1))[0]
    assert tally.cases == len(recording.data) + 1
    whole = recording.data.index(b'"stop"}]}') + len(b'"stop"}]}')
    # Every cut between the first text and the finish fails, however few turns were played.
    assert tally.failed == whole - tally.first_cut
    assert len(played) < 100
