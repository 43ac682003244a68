import json
import re
from pathlib import Path
from typing import Final

import pytest

from gateway.dialects.helper import Helper
from gateway.errors import GatewayError, MailboxNotFound, NotFound, NotOwner, Unauthorized
from tests.golden import FOLDER as GOLDEN

HERE: Final = Path(__file__).parent
DOCUMENTS: Final = {
    "hyponema": "hyponema-chat-api.txt",
    "hyperleap": "hyperleap-chat-http2.txt",
    "widget": "widget-chat-stream.txt",
    "helper": "helper-chat-api.txt",
}
SAMPLES: Final = sorted((HERE / "samples").glob("*.txt"))


def document(dialect: str) -> str:
    return (HERE / DOCUMENTS[dialect]).read_text()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_sample_stands_in_its_document_as_it_is(sample: Path) -> None:
    dialect = sample.name.partition("-")[0]
    assert sample.read_text().removesuffix("\n") in document(dialect)


def test_every_printed_program_is_a_sample() -> None:
    texts = [sample.read_text() for sample in SAMPLES]
    starts = ("curl -", "const response", "import requests")
    for dialect in DOCUMENTS:
        text = document(dialect)
        for start in starts:
            for place in re.finditer(re.escape(start), text):
                line = text[place.start() :].split("\n", 1)[0]
                assert any(line in sample for sample in texts), line


def shape(value: object) -> object:
    """The names in a JSON value, in their order; a list has the shape of its first value."""
    if isinstance(value, dict):
        return [(name, shape(inner)) for name, inner in value.items()]
    return [shape(value[0])] if isinstance(value, list) and value else None


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


def test_the_widget_lines_are_the_printed_ones() -> None:
    printed = [json.loads(line) for line in re.findall(r'\{"type":".*\}', document("widget"))]
    assert {event["type"] for event in printed} == {"start", "token", "done", "error"}
    written = [
        json.loads(line)
        for case in ("text", "error_mid_text")
        for line in golden(f"widget/{case}.ndjson").splitlines()
    ]
    shapes = {event["type"]: shape(event) for event in printed}
    assert {event["type"]: shape(event) for event in written} == shapes
    error = next(event for event in printed if event["type"] == "error")
    assert error in written


def test_the_hyponema_events_have_the_documented_members() -> None:
    rows = re.findall(r"^(\w+) \| ([\w, ]+) \| ", document("hyponema"), re.MULTILINE)
    documented = {event: members.split(", ") for event, members in rows}
    assert len(documented) == 7
    seen: dict[str, list[str]] = {}
    for file in (GOLDEN / "hyponema").glob("*.sse"):
        for event, data in re.findall(r"event: (\w+)\ndata: (.*)\n", file.read_text()):
            members = list(json.loads(data))
            assert documented[event] == members, file.name
            seen[event] = members
    assert seen == documented


def test_the_hyperleap_items_have_the_printed_members() -> None:
    item = json.loads((HERE / "samples" / "hyperleap-item.json.txt").read_text())
    names = {name: members(item, name) for name in ("", "choice", "message", "usage")}
    for case in ("text", "tool", "citations", "usage"):
        for file in (GOLDEN / "hyperleap").glob(f"{case}.array*.json"):
            for written in json.loads(file.read_text()):
                assert members(written, "") == names[""]
                assert members(written, "choice") == names["choice"]
                assert members(written, "message") == names["message"]
                if written["usage"] is not None:
                    assert members(written, "usage") == names["usage"]
    *_, last = json.loads(golden("hyperleap/citations.array.json"))
    assert list(last["citations"][0]) == list(item["citations"][0])


def members(item: dict[str, dict[str, object]], name: str) -> list[str]:
    if name == "":
        return list(item)
    found = item["choice"]["message"] if name == "message" else item[name]
    assert isinstance(found, dict)
    return list(found)


HELPER_ERRORS: Final[tuple[tuple[GatewayError, str], ...]] = (
    (Unauthorized("expired"), "Invalid token"),
    (MailboxNotFound("none"), "Mailbox not found"),
    (NotFound("none"), "Conversation not found"),
    (NotOwner("another's"), "Unauthorized"),
)


@pytest.mark.parametrize(("error", "text"), HELPER_ERRORS, ids=lambda value: str(value))
def test_helper_errors_have_the_documented_status_and_text(error: GatewayError, text: str) -> None:
    rows = re.findall(r"^(\d{3}) \| ([^|]+) \|", document("helper"), re.MULTILINE)
    assert len(rows) == len(HELPER_ERRORS)
    reply = Helper().encode_error(error)
    assert (str(reply.status), text) in rows
    assert json.loads(reply.body) == {"error": text}
