import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamProtocolError
from gateway.framing.sse import MAX_EVENT, MAX_LINE, SseEvent, SseReader

VECTORS = Path(__file__).parent.parent / "vectors" / "sse.jsonl"


@dataclass(frozen=True)
class Case:
    name: str
    stream: bytes
    events: list[SseEvent]


def _cases() -> list[Case]:
    rows = [json.loads(line) for line in VECTORS.read_text("utf-8").splitlines()]
    return [
        Case(row["case"], row["stream"].encode(), [(n, d.encode()) for n, d in row["events"]])
        for row in rows
    ]


CASES = _cases()
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def read(*chunks: bytes) -> list[SseEvent]:
    reader = SseReader()
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return events + reader.close()


def single_bytes(stream: bytes) -> list[bytes]:
    return [stream[place : place + 1] for place in range(len(stream))]


@each_case
def test_a_stream_is_read_whole(case: Case) -> None:
    assert read(case.stream) == case.events


@each_case
def test_a_stream_is_read_byte_by_byte(case: Case) -> None:
    assert read(*single_bytes(case.stream)) == case.events


@each_case
def test_a_stream_cut_in_two_anywhere_reads_the_same(case: Case) -> None:
    for place in range(len(case.stream) + 1):
        assert read(case.stream[:place], case.stream[place:]) == case.events, place


@given(
    st.lists(st.sampled_from([b"data: a", b"data:", b": c", b"event: e", b"x", b""]), max_size=12),
    st.data(),
)
def test_any_line_ends_and_any_split_read_like_plain_lines(
    lines: list[bytes], data: st.DataObject
) -> None:
    ends = [data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])) for _ in lines]
    # A CR before an LF would be one line end, so an empty line after CR must not end with LF.
    for place in range(1, len(lines)):
        if lines[place] == b"" and ends[place - 1] == b"\r" and ends[place] == b"\n":
            ends[place] = b"\r"
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    bounds = [0, *cuts, len(stream)]
    chunks = [stream[low:high] for low, high in itertools.pairwise(bounds)]
    assert read(*chunks) == read(b"".join(line + b"\n" for line in lines))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "delta", "error"]),
            st.text().map(lambda text: text.replace("\r", "").replace("\ufeff", "").encode()),
        )
    )
)
def test_what_was_written_is_read(events: list[SseEvent]) -> None:
    stream = b""
    for name, data in events:
        stream += f"event: {name}\n".encode() if name else b""
        stream += b"".join(b"data: " + line + b"\n" for line in data.split(b"\n")) + b"\n"
    assert read(stream) == events


def test_an_event_comes_with_the_byte_that_ends_it() -> None:
    for end in (b"\n\n", b"\r\r"):
        reader = SseReader()
        assert reader.feed(b"data: a" + end[:1]) == []
        assert reader.feed(end[1:]) == [("", b"a")]


def test_the_lf_of_a_crlf_that_was_cut_after_its_event_is_no_blank_line() -> None:
    assert read(b"data: a\r\n\r", b"\nevent: x\r", b"\ndata: b\r\n\r\n") == [
        ("", b"a"),
        ("x", b"b"),
    ]


def test_a_line_of_the_greatest_size_is_read() -> None:
    line = b"data: " + b"a" * (MAX_LINE - 6)
    assert read(line + b"\n\n") == [("", line[6:])]
    assert read(line[:1000], line[1000:], b"\n\n") == [("", line[6:])]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
@pytest.mark.parametrize("field", [b"data: ", b": ", b"foo"])
def test_a_longer_line_is_an_error_that_names_the_limit(field: bytes, end: bytes) -> None:
    line = field + b"a" * (MAX_LINE + 1 - len(field)) + end
    with pytest.raises(UpstreamProtocolError, match=f"line has more than {MAX_LINE} bytes"):
        SseReader().feed(line)


def test_an_event_of_many_lines_has_a_limit_too() -> None:
    line = b"data: " + b"a" * 1017 + b"\n"
    reader = SseReader()
    reader.feed(line * 1024)
    with pytest.raises(UpstreamProtocolError, match=f"event has more than {MAX_EVENT} bytes"):
        reader.feed(line)
    with pytest.raises(UpstreamProtocolError):
        reader.feed(b"data: x\n\n")


def test_ten_thousand_lines_are_one_event() -> None:
    assert read(b"data: a\n" * 10_000 + b"\n") == [("", b"\n".join([b"a"] * 10_000))]


def test_events_before_a_line_that_is_too_long_are_delivered_first() -> None:
    reader = SseReader()
    stream = b"data: a\n\n" + b"x" * (MAX_LINE + 1) + b"\n\ndata: b\n\n"
    assert reader.feed(stream) == [("", b"a")]
    assert isinstance(reader.failure, UpstreamProtocolError)
    with pytest.raises(UpstreamProtocolError):
        reader.feed(b"")
    with pytest.raises(UpstreamProtocolError):
        reader.close()


def test_a_line_that_is_too_long_at_the_end_of_the_stream_is_an_error() -> None:
    reader = SseReader()
    reader.feed(b"data: " + b"a" * (MAX_LINE - 6))
    assert reader.close() == [("", b"a" * (MAX_LINE - 6))]
    with pytest.raises(UpstreamProtocolError):
        read(b"data: " + b"a" * MAX_LINE)
