from pathlib import Path

import pytest

from gateway.certify.recordings import FOLDER, PROTOCOLS, Unreadable, read, shipped

EVENTS = "text/event-stream"
OPENAI = b'data: {"id":"c","object":"chat.completion.chunk","choices":[]}\n\ndata: [DONE]\n\n'
ANTHROPIC = b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recording"


@pytest.mark.parametrize(
    ("data", "protocol", "kind"),
    [
        (OPENAI, "openai", EVENTS),
        (b"\xef\xbb\xbf: hello\r\n\r\n" + OPENAI.replace(b"\n", b"\r\n"), "openai", EVENTS),
        (OPENAI[:-10], "openai", EVENTS),
        (b'data: {"error":{"message":"no"}}\n\n', "openai", EVENTS),
        (b'data: {"choices":[]}', "openai", EVENTS),
        (ANTHROPIC, "anthropic", EVENTS),
        (b'event: ping\ndata: {"type":"ping"}\n\n', "anthropic", EVENTS),
        (b'event: error\ndata: {"type":"error","error":{}}\n\n', "anthropic", EVENTS),
        (b'\n {"choices":[{"message":{}}]}', "openai", "application/json"),
        (b'{"type":"message","content":[]}', "anthropic", "application/json"),
    ],
)
def test_the_wire_is_told_by_the_content(file: Path, data: bytes, protocol: str, kind: str) -> None:
    file.write_bytes(data)
    recording = read(file)
    assert (recording.protocol, recording.content_type) == (protocol, kind)
    assert (recording.name, recording.data) == (str(file), data)


def test_a_wire_that_is_given_is_not_guessed(file: Path) -> None:
    file.write_bytes(OPENAI)
    assert read(file, "anthropic").protocol == "anthropic"
    file.write_bytes(b"")
    assert read(file, "openai").content_type == "text/event-stream"


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (b"", "give --protocol openai or anthropic"),
        (b"Hello\n", "give --protocol openai or anthropic"),
        (b"[1]", "give --protocol"),
        (b'{"a": {', "give --protocol"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + OPENAI, "record the body alone"),
        (OPENAI * 5000, "record a shorter answer"),
    ],
)
def test_what_is_no_recording_is_refused_with_advice(file: Path, data: bytes, advice: str) -> None:
    file.write_bytes(data)
    with pytest.raises(Unreadable, match=advice) as refused:
        read(file)
    assert str(refused.value).startswith(f"{file}: ")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "nothing", tmp_path):
        with pytest.raises(Unreadable, match=str(missing)):
            read(missing)


def test_the_shipped_recordings_are_streams_and_documents_of_every_wire() -> None:
    found = shipped()
    assert len({recording.name for recording in found}) == len(found)
    for protocol in PROTOCOLS:
        own = [recording for recording in found if recording.protocol == protocol]
        assert {recording.is_document for recording in own} == {True, False}
        files = {path.stem for path in (FOLDER / protocol).iterdir()}
        assert {Path(recording.name).name for recording in own} == files


def test_a_shipped_recording_is_guessed_as_what_it_is_or_not_at_all(file: Path) -> None:
    guessed = 0
    for recording in shipped():
        file.write_bytes(recording.data)
        try:
            found = read(file)
        except Unreadable:
            continue
        guessed += 1
        if found.protocol != recording.protocol:
            # An error in OpenAI's form, which a proxy in front of Anthropic sent.
            assert b'{"type":"error"' not in recording.data, recording.name
            assert b'"error"' in recording.data, recording.name
    assert guessed > 0.9 * len(shipped())
