import json

import pytest

from gateway.chat import Target
from gateway.chat.readers import Ended, Failed, Noted, Said, Seen
from tests.chat.wires import FAILURES, WIRES


def read(wire: str, pieces: list[bytes]) -> list[Seen]:
    dialect, content_type, _ = WIRES[wire]
    reader = Target("http://x", dialect, "K").reader(content_type)
    return [seen for piece in pieces for seen in reader.feed(piece)]


def said(seen: list[Seen]) -> str:
    return "".join(entry.text for entry in seen if isinstance(entry, Said))


@pytest.mark.parametrize("wire", WIRES)
def test_a_reply_is_read_from_its_bytes(wire: str) -> None:
    seen = read(wire, [WIRES[wire][2]])
    assert said(seen) == "Hello"
    assert [entry for entry in seen if not isinstance(entry, Said)] == [Ended()]
    assert seen[-1] == Ended()


@pytest.mark.parametrize("wire", WIRES)
def test_any_split_of_the_bytes_reads_alike(wire: str) -> None:
    whole = WIRES[wire][2]
    expected = read(wire, [whole])
    for at in range(len(whole)):
        assert read(wire, [whole[:at], whole[at:]]) == expected
    assert read(wire, [bytes([byte]) for byte in whole]) == expected


@pytest.mark.parametrize("wire", WIRES)
def test_a_failed_reply_has_one_end_and_the_servers_words(wire: str) -> None:
    body, text = FAILURES[wire]
    seen = read(wire, [body])
    assert said(seen) == "Hello"
    assert [entry for entry in seen if isinstance(entry, Ended | Failed)] == [Failed(text)]


@pytest.mark.parametrize("wire", WIRES)
def test_a_reply_that_is_cut_has_no_end(wire: str) -> None:
    whole = WIRES[wire][2]
    end = {"hyponema": b"event: turn_end", "hyperleap": b"stop", "widget": b'{"type":"done"'}
    cut = whole[: whole.index(end.get(wire, b"finish" if wire == "helper" else b"e:{"))]
    assert Ended() not in read(wire, [cut])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("garbage", [b"data: {\n\n0:{\n{]\n\n", b"\xff\xfe\n\n", b"[[[[\n\n"])
def test_garbage_is_never_an_end_and_never_raises(wire: str, garbage: bytes) -> None:
    assert Ended() not in read(wire, [garbage])


@pytest.mark.parametrize("wire", WIRES)
def test_a_record_without_end_is_given_up(wire: str) -> None:
    start = {"hyperleap": b'[{"a":"', "hyponema": b"data: ", "helper": b"data: "}.get(
        wire, b'{"a":"'
    )
    reader = Target("http://x", WIRES[wire][0], "K").reader(WIRES[wire][1])
    seen = [entry for piece in [start, *[b"x" * 65_536] * 300] for entry in reader.feed(piece)]
    assert [type(entry) for entry in seen] == [Failed]


def test_what_a_guard_puts_in_the_replys_place_is_shown() -> None:
    guard = b'{"kind":"no_go","action":"redirect","detail":"x","replacement":"Ask us."}'
    start = b'event: turn_start\ndata: {"turn_id":"t","model":"m"}\n\n'
    seen = read("hyponema", [start + b"event: guard\ndata: " + guard + b"\n\n"])
    assert seen == [Noted("guard no_go: redirect"), Said("Ask us.")]
    assert read("widget", [_widget("bad", "Ask us.")])[1:] == [
        Noted("the reply is replaced by:"),
        Said("Ask us."),
        Ended(),
    ]


def test_the_widgets_done_may_differ_in_the_space_around_it() -> None:
    assert read("widget", [_widget(" Hi \n", "Hi")]) == [Said(" Hi \n"), Ended()]


def test_what_breaks_the_wires_rules_is_told_and_ends_the_reading() -> None:
    body = _widget("Hi", "Hi")
    seen = read("widget", [body + body, body])
    assert seen == [
        Said("Hi"),
        Ended(),
        Failed("the reply is not as documented: a line after the terminal one"),
    ]


def _widget(token: str, message: str) -> bytes:
    lines = [
        {"type": "start", "conversationId": "c"},
        {"type": "token", "token": token},
        {"type": "done", "message": message, "conversationId": "c"},
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
