from pathlib import Path
from typing import Final

import pytest

from tests.ci.chromium import key_digest
from tests.clients.reading import from_events, read
from tests.e2e.tls import CERTIFICATE
from tests.golden import FOLDER

BODIES: Final = {
    "hyponema": ("hyponema", "sse"),
    "hyperleap": ("hyperleap", "array.json"),
    "widget": ("widget", "ndjson"),
    "helper v4": ("helper", "data-stream.txt"),
    "helper v5": ("helper", "ui-message-stream.sse"),
}
EACH: Final = pytest.mark.parametrize("wire", BODIES)


def body_of(wire: str, case: str) -> bytes:
    folder, suffix = BODIES[wire]
    return Path(FOLDER, folder, f"{case}.{suffix}").read_bytes()


@EACH
def test_a_whole_answer_is_understood(wire: str) -> None:
    seen = read(wire, 200, body_of(wire, "text"))
    assert (seen["status"], seen["error"], seen["kept_alive"]) == (200, None, False)
    assert seen["text"] == "Your order shipped on Monday."


@EACH
def test_a_failed_one_shows_its_error_and_what_came_before(wire: str) -> None:
    seen = read(wire, 200, body_of(wire, "error_mid_text"))
    assert seen["error"]
    assert seen["text"] == "Half a sent"


@EACH
def test_half_an_answer_is_none(wire: str) -> None:
    body = body_of(wire, "text")
    seen = read(wire, 200, body[: len(body) * 2 // 3])
    assert "crashed" in seen or seen["error"] is not None


@EACH
def test_a_refusal_is_shown_as_it_came(wire: str) -> None:
    assert read(wire, 500, b"{}")["error"] == "{}"


def test_events_without_their_end_are_no_answer() -> None:
    assert "crashed" in from_events("helper v5", [])
    assert from_events("hyponema", [("turn_start", "{}")])["error"]


def test_the_browser_trusts_the_key_of_the_certificate() -> None:
    # By `openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary`.
    assert key_digest(CERTIFICATE) == "ZKyILDL0wjp9EZ7NeUyi93yJBGHP/+dRWaxVkoDwVWE="
