import json

import pytest

from gateway.errors import (
    ERROR_KINDS,
    BadRequest,
    Drained,
    Draining,
    GatewayError,
    HttpError,
    Internal,
    Overloaded,
    RateLimited,
    UpstreamUnavailable,
)
from gateway.replies import TEXTS, error_reply, http_text, json_reply, retry_after, row


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RateLimited(), 1),
        (RateLimited(retry_after=0), 1),
        (RateLimited(retry_after=0.2), 1),
        (RateLimited(retry_after=7.1), 8),
        (RateLimited(retry_after=-3), 1),
        (RateLimited(retry_after=86_400), 3600),
        (RateLimited(retry_after=float("inf")), 3600),
        (Overloaded(), 5),
        (Draining(retry_after=30), 30),
        (Drained(), 5),
        (UpstreamUnavailable(), 5),
        (Internal(), None),
        (BadRequest(), None),
        (GatewayError(retry_after=4), None),
    ],
)
def test_an_answer_says_when_to_try_again(error: GatewayError, seconds: int | None) -> None:
    assert retry_after(error) == seconds


@pytest.mark.parametrize(
    ("error", "status", "value"),
    [
        (RateLimited(), 429, "1"),
        (Overloaded(), 503, "5"),
        (UpstreamUnavailable(), 500, None),
        (Internal(), 503, "1"),
        (Internal(), 500, None),
    ],
)
def test_429_and_503_and_no_others_carry_retry_after(
    error: GatewayError, status: int, value: str | None
) -> None:
    assert dict(error_reply(error, status, {}).headers).get("retry-after") == value


def test_an_error_of_http_keeps_its_headers() -> None:
    reply = error_reply(HttpError(405, headers={"Allow": "POST"}), 405, {"error": "no"})
    assert dict(reply.headers)["allow"] == "POST"
    assert reply.status == 405


def test_a_json_answer_is_ascii_and_not_stored() -> None:
    reply = json_reply(200, {"name": "é", "n": None}, (("x-a", "b"),))
    assert reply.body == b'{"name":"\\u00e9","n":null}'
    assert reply.headers == (
        ("content-type", "application/json; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-a", "b"),
    )


def test_kinds_of_a_stream_are_answered_with_a_row_of_the_table() -> None:
    rows = {kind: row(kind) for kind in ERROR_KINDS if row(kind) != kind}
    assert rows == {
        "context_length": "payload_too_large",
        "truncated": "upstream_error",
        "content_filtered": "upstream_error",
        "deadline": "upstream_timeout",
        "cancelled": "draining",
        "drained": "draining",
    }


def test_every_kind_has_a_text_of_its_own() -> None:
    assert set(TEXTS) == set(ERROR_KINDS)
    assert len(set(TEXTS.values())) == len(TEXTS)
    assert all(text.isascii() and text for text in TEXTS.values())


@pytest.mark.parametrize("status", [404, 405, 408, 414, 415, 431])
def test_every_status_that_http_fixes_has_a_text_of_its_own(status: int) -> None:
    assert http_text(HttpError(status)) != http_text(HttpError(400))
    assert json.dumps(http_text(HttpError(status))).isascii()
