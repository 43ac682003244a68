import json
from collections.abc import Callable

import pytest

from gateway.readers import MAX_RECORD, Broken, Reader, helper, hyperleap, hyponema, widget
from gateway.readers.eventstream import EventStream
from tests.golden import WIRES, Wire

READERS: dict[str, Callable[[], Reader]] = {
    f"{module.__name__.rpartition('.')[2]} {framing}": reader
    for module in (hyponema, hyperleap, widget, helper)
    for framing, reader in module.READERS.items()
}
STREAMS = [wire for wire in WIRES if wire.framing != "one-shot"]
EACH_STREAM = pytest.mark.parametrize("wire", STREAMS, ids=lambda wire: wire.name)


def read(make: Callable[[], Reader], body: bytes) -> Reader:
    reader = make()
    reader.feed(body)
    reader.close()
    return reader


def refused(make: Callable[[], Reader], body: bytes) -> str:
    with pytest.raises(Broken) as broken:
        read(make, body)
    return str(broken.value)


def records(wire: Wire, case: str) -> list[bytes]:
    """The transcript, apart at its record ends."""
    body = wire.transcript(case).read_bytes()
    end = b"\n\n" if wire.transcript(case).suffix == ".sse" else b"\n"
    if wire.framing == "array":
        items = json.loads(body)
        texts = [json.dumps(item, separators=(",", ":")).encode() for item in items]
        return [b"[" + texts[0], *(b"," + text for text in texts[1:]), b"]"]
    return [record + end for record in body.removesuffix(end).split(end)]


@EACH_STREAM
@pytest.mark.parametrize("case", ["text", "error_mid_text"])
def test_a_stream_apart_at_its_records_is_the_stream(wire: Wire, case: str) -> None:
    good = read(wire.reader, b"".join(records(wire, case)))
    assert good.terminals == ["error" if case.startswith("error") else "ok"]


@EACH_STREAM
@pytest.mark.parametrize("case", ["text", "error_mid_text", "tool", "error_mid_tool"])
def test_a_stream_without_its_last_record_is_broken_or_without_an_end(
    wire: Wire, case: str
) -> None:
    body = b"".join(records(wire, case)[:-1])
    try:
        reader = read(wire.reader, body)
    except Broken:
        return
    # What a client can do without: facts about the message after a good end.
    annotated = wire.framing.startswith("data-stream") and not case.startswith("error")
    assert reader.terminals == (["ok"] if annotated else [])


@EACH_STREAM
@pytest.mark.parametrize("case", ["text", "error_mid_text"])
def test_a_stream_that_begins_anew_after_its_end_is_broken(wire: Wire, case: str) -> None:
    body = wire.transcript(case).read_bytes()
    assert refused(wire.reader, body + body)


# In these two an opening item looks like any other, and the last has none.
UNOPENED = ("hyperleap-sse", "hyperleap-ndjson", "helper-data-stream-early.txt")
OPENED = [wire for wire in STREAMS if wire.name not in UNOPENED]


@pytest.mark.parametrize("wire", OPENED, ids=lambda wire: wire.name)
@pytest.mark.parametrize("case", ["text", "error_mid_text"])
def test_a_stream_without_its_first_record_is_broken(wire: Wire, case: str) -> None:
    assert refused(wire.reader, b"".join(records(wire, case)[1:]))


@EACH_STREAM
def test_a_stream_that_ends_inside_a_record_is_broken(wire: Wire) -> None:
    body = wire.transcript("text").read_bytes().rstrip()
    assert refused(wire.reader, body[: len(body) - 1] if wire.framing == "array" else body[:-3])


@EACH_STREAM
def test_bytes_beyond_ascii_are_broken(wire: Wire) -> None:
    body = wire.transcript("text").read_bytes()
    letter = body.index(b"Hel") if b"Hel" in body else body.rindex(b'"')
    assert refused(wire.reader, body[:letter] + "é".encode() + body[letter:])


GARBAGE = rb"""
[]
{}
[{}]
null
[
{
0:
0:NaN
x:1
9:{}
f:{}
d:{"finishReason":[]}
data: {}
data: {
data: []
data: [DONE]
data: {"type":"finish"}
data: {"type":"start","messageId":"m"}
{"type":"start"}
{"type":[]}
[{"choice":{}}]
{"choices":[]}
{"error":1}
{"error":{}}
""".split(b"\n")


@pytest.mark.parametrize("make", READERS.values(), ids=READERS)
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\xff\n"])
def test_garbage_is_broken_or_has_no_good_end(make: Callable[[], Reader], end: bytes) -> None:
    for body in GARBAGE:
        try:
            reader = read(make, body + end)
        except Broken:
            continue
        assert "ok" not in reader.terminals


def flood(reader: Reader) -> None:
    for _ in range(5):
        reader.feed(b"x" * MAX_RECORD)


@pytest.mark.parametrize(("name", "make"), READERS.items(), ids=READERS)
def test_a_record_without_end_is_given_up(name: str, make: Callable[[], Reader]) -> None:
    reader = make()
    reader.feed(b'[{"a":"' if name == "hyperleap array" else b"x")
    with pytest.raises(Broken, match="no end"):
        flood(reader)


# Rules of one wire

TURN = b'event: turn_start\ndata: {"turn_id":"t","model":"m"}\n\n'
WIDGET_START = b'{"type":"start","conversationId":"c"}\n'
STEP = b'f:{"messageId":"m"}\n'
UI = b'data: {"type":"start","messageId":"m"}\n\ndata: {"type":"start-step"}\n\n'


def event(kind: str, /, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(members)}\n\n".encode()


def chunk(kind: str, /, **members: object) -> bytes:
    return f"data: {json.dumps({'type': kind, **members})}\n\n".encode()


def item(content: str = "", reason: str | None = None, **more: object) -> dict[str, object]:
    message = {"role": "assistant", "content": content, "toolCallId": None, "name": None}
    choice = {"finish_reason": reason, "index": 0, "message": message, "moderation_results": None}
    whole = {"choice": choice, "usage": None, "messageId": "m", "runId": "r", "citations": None}
    return {**whole, **more}


def array(*items: dict[str, object]) -> bytes:
    return json.dumps(items).encode()


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@pytest.mark.parametrize(
    ("make", "body", "rule"),
    [
        (hyponema.Reader, TURN + event("news", a=1), "does not have"),
        (hyponema.Reader, TURN + event("token", text="a", more=1), "other members"),
        (
            hyponema.Reader,
            TURN
            + event("tool_call", call_id="c", name="n", arguments_partial="{1")
            + event("tool_call", call_id="c", name="n", arguments_partial="{2"),
            "does not begin with the last one",
        ),
        (
            hyponema.Reader,
            TURN
            + event("tool_result", call_id="c", name="n", arguments={}, result=1, latency_ms=1),
            "without its call",
        ),
        (
            hyponema.Reader,
            TURN + event("guard", kind="k", action="block", detail="d", replacement="r"),
            "replacement",
        ),
        (
            hyponema.Reader,
            TURN
            + event("turn_end", turn_id="u", latency_ms=1, prompt_tokens=1, completion_tokens=1),
            "another turn",
        ),
        (
            hyponema.Reader,
            TURN
            + event("turn_end", turn_id="t", latency_ms=1, prompt_tokens=None, completion_tokens=1),
            "no whole number",
        ),
        (hyperleap.ArrayReader, array(item(), item("text", "stop")), "the last item has text"),
        (hyperleap.ArrayReader, array(item(), item("", None, usage=USAGE)), "usage before"),
        (hyperleap.ArrayReader, array(item(), item("", "error", usage=USAGE)), "failed turn"),
        (hyperleap.ArrayReader, array(item(), item("", "because")), "unknown finish_reason"),
        (hyperleap.ArrayReader, array(item(), item("", None, runId="s")), "runId changed"),
        (
            hyperleap.ArrayReader,
            array(item(), item("", "stop", usage={**USAGE, "total_tokens": 4})),
            "not the sum",
        ),
        (widget.LineReader, WIDGET_START + b'{"type":"x"}\n', "a type"),
        (
            widget.LineReader,
            WIDGET_START + b'{"type":"done","message":"","conversationId":"d"}\n',
            "another conversation",
        ),
        (
            widget.LineReader,
            WIDGET_START + b'{"type":"error","error":"stack trace"}\n',
            "other words",
        ),
        (helper.DataStreamReader, b'0:"text"\n', "outside a step"),
        (helper.READERS["data-stream-early"], STEP, "unknown code"),
        (helper.DataStreamReader, STEP + b'a:{"toolCallId":"c","result":1}\n', "without its call"),
        (helper.DataStreamReader, STEP + b'3:"no"\n0:"more"\n', "after the error"),
        (helper.DataStreamReader, STEP + b'd:{"finishReason":"stop"}\n', "inside a step"),
        (
            helper.DataStreamReader,
            STEP + b'e:{"finishReason":"error","isContinued":false}\n',
            "the reason is error without one",
        ),
        (helper.UiMessageReader, UI + chunk("text-delta", id="t", delta="a"), "not open"),
        (helper.UiMessageReader, UI + chunk("text-start", id="t", state="x"), "odd members"),
        (helper.UiMessageReader, UI + chunk("tool-call", id="t"), "unknown type"),
        (
            helper.UiMessageReader,
            UI + chunk("text-start", id="t") + chunk("finish-step"),
            "while a part is open",
        ),
        (
            helper.UiMessageReader,
            UI
            + chunk("tool-input-start", toolCallId="c", toolName="n")
            + chunk("error", errorText="no"),
            "while a tool call is open",
        ),
        (
            helper.UiMessageReader,
            UI
            + chunk("tool-input-start", toolCallId="c", toolName="n")
            + chunk("finish-step")
            + chunk("finish", messageMetadata={"finishReason": "stop", "latencyMs": 1}),
            "inside a call's input",
        ),
        (helper.UiMessageReader, UI + chunk("error", errorText="no"), "no [DONE]"),
    ],
)
def test_a_rule_that_is_broken_is_named(make: Callable[[], Reader], body: bytes, rule: str) -> None:
    assert rule in refused(make, body)


@pytest.mark.parametrize(
    ("make", "body", "usage"),
    [
        (
            hyponema.Reader,
            TURN
            + event("turn_end", turn_id="t", latency_ms=1, prompt_tokens=1, completion_tokens=2),
            (1, 2),
        ),
        (hyperleap.ArrayReader, array(item(), item("", "stop", usage=USAGE)), (1, 2)),
        (hyperleap.ArrayReader, array(item(), item("", "stop")), None),
        (
            helper.DataStreamReader,
            STEP
            + b'e:{"finishReason":"stop","isContinued":false}\n'
            + b'd:{"finishReason":"stop","usage":{"promptTokens":1,"completionTokens":2}}\n',
            (1, 2),
        ),
    ],
)
def test_the_usage_that_a_stream_states_is_read(
    make: Callable[[], Reader], body: bytes, usage: object
) -> None:
    assert read(make, body).usage == usage


@pytest.mark.parametrize(
    ("read_refusal", "good", "text"),
    [
        (hyponema.refusal, b'{"detail":"no","error_kind":"deadline"}', "no"),
        (hyperleap.refusal, b'{"error":{"code":"c","message":"no"}}', "no"),
        (widget.refusal, b'{"error":"no"}', "no"),
        (helper.refusal, b'{"error":"no"}', "no"),
    ],
)
def test_a_refusal_is_read_and_another_form_is_broken(
    read_refusal: Callable[[bytes], str], good: bytes, text: str
) -> None:
    assert read_refusal(good) == text
    for bad in (
        b"",
        b"no",
        b"{}",
        b'{"error":1}',
        b'{"detail":"no"}',
        good[:-1],
        b"[" + good + b"]",
    ):
        with pytest.raises(Broken):
            read_refusal(bad)


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_events_are_read_the_same_however_their_lines_end_and_the_bytes_come(
    line_end: str,
) -> None:
    text = ": hi\n\nevent: a\ndata: 1\ndata:  2\nid: 7\n\ndata:é\n\nevent: b\n\ndata\n\n"
    body = text.replace("\n", line_end).encode()
    expected = [("a", "1\n 2"), ("message", "é"), ("message", "")]
    for size in range(1, len(body) + 1):
        stream = EventStream()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert [found for piece in pieces for found in stream.feed(piece)] == expected
        stream.close()
        assert stream.comments == ["hi"]


@pytest.mark.parametrize("body", [b"data: 1", b"data: 1\n", b"data: 1\n\ndata"])
def test_a_stream_that_ends_inside_an_event_is_broken(body: bytes) -> None:
    stream = EventStream()
    stream.feed(body)
    with pytest.raises(Broken):
        stream.close()
