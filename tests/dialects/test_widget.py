import json
from typing import Final

import pytest

from gateway.dialects.widget import Widget
from gateway.errors import (
    ERROR_KINDS,
    BadRequest,
    FieldIssue,
    HttpError,
)
from gateway.events import (
    GuardFired,
    RoundFinished,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnStarted,
)
from gateway.messages import ChatRequest, DialectOptions, RequestHead
from gateway.ports.codecs import Encoder
from gateway.ports.routes import CredentialSource, Route
from tests.golden import REFUSAL, cases, context, error_of, load
from tests.heads import bare_head, request_head

DIALECT: Final = Widget()
OPTIONS: Final = DialectOptions()
BODY: Final = b'{"sessionId":"user-123","message":"Explain what your company does"}'

ROWS: Final = {
    "bad_request": (400, "Invalid request payload"),
    "unauthorized": (401, "Unauthorized"),
    "forbidden": (401, "Unauthorized"),
    "not_found": (404, "Not found"),
    "conflict": (409, "Conflict"),
    "payload_too_large": (413, "Invalid request payload"),
    "context_length": (413, "Invalid request payload"),
    "rate_limited": (429, "Too many requests"),
    "upstream_error": (500, "Internal server error"),
    "truncated": (500, "Internal server error"),
    "content_filtered": (500, "Internal server error"),
    "upstream_rate_limited": (500, "Internal server error"),
    "upstream_unavailable": (500, "Internal server error"),
    "upstream_timeout": (500, "Internal server error"),
    "deadline": (500, "Internal server error"),
    "overloaded": (503, "Too many requests"),
    "draining": (503, "Too many requests"),
    "drained": (503, "Too many requests"),
    "cancelled": (503, "Too many requests"),
    "store_unavailable": (503, "Too many requests"),
    "internal": (500, "Internal server error"),
}


def decode(body: bytes, head: RequestHead | None = None) -> ChatRequest:
    return DIALECT.decode_request(head or request_head("/chat"), body, OPTIONS)


def encoder(framing: str = "ndjson") -> Encoder:
    return DIALECT.encoder(context(framing))


def body(session_id: object = "s", message: object = "m") -> bytes:
    return json.dumps({"sessionId": session_id, "message": message}).encode()


def test_it_has_the_documented_routes_and_credentials() -> None:
    assert DIALECT.name == "widget"
    assert DIALECT.routes == (
        Route("POST", "/v1/chat/stream"),
        Route("POST", "/chat"),
        Route("POST", "/v1/chat"),
    )
    assert DIALECT.credentials == (
        CredentialSource("x-api-key"),
        CredentialSource("x-widget-api-key"),
    )
    assert DIALECT.conflict == "queue"


@pytest.mark.parametrize(
    ("path", "framing"),
    [("/v1/chat/stream", "ndjson"), ("/chat", "ndjson"), ("/v1/chat", "one-shot")],
)
def test_the_route_chooses_between_lines_and_one_answer(path: str, framing: str) -> None:
    expected = ChatRequest("user-123", "Explain what your company does", framing)
    assert decode(BODY, request_head(path)) == expected


@pytest.mark.parametrize(
    ("session_id", "message"),
    [
        ("A-Za.z0:9_", " "),
        ("x" * 128, "x" * 4000),
        ("s", "\U0001f680" * 2000),
        ("s", "é" * 4000),
        ("s", "\n"),
    ],
)
def test_a_message_is_taken_as_it_is(session_id: str, message: str) -> None:
    assert decode(body(session_id, message)) == ChatRequest(session_id, message, "ndjson")


def test_other_members_are_ignored() -> None:
    request = decode(b'{"sessionId":"s","message":"m","page":{"url":"/"},"x":null}')
    assert request == ChatRequest("s", "m", "ndjson")


LENGTH: Final = "must have 1 to 4000 UTF-16 code units"
PATTERN: Final = "must match [A-Za-z0-9._:-]{1,128}"


@pytest.mark.parametrize(
    ("payload", "field", "issue"),
    [
        (body(message=""), "message", LENGTH),
        (body(message="x" * 4001), "message", LENGTH),
        (body(message="\U0001f680" * 2001), "message", LENGTH),
        (body(message="x" + "\U0001f680" * 2000), "message", LENGTH),
        (body(message=7), "message", "must be a string"),
        (body(message="a\0"), "message", "must not hold the character U+0000"),
        (body(session_id=""), "sessionId", PATTERN),
        (body(session_id="x" * 129), "sessionId", PATTERN),
        (body(session_id="abc\n"), "sessionId", PATTERN),
        (body(session_id="a b"), "sessionId", PATTERN),
        (body(session_id="\u0661"), "sessionId", PATTERN),
        (body(session_id=None), "sessionId", "is required"),
        (b'{"sessionId":"s"}', "message", "is required"),
        (b"{", "body", "is not JSON"),
        (b"[]", "body", "is not a JSON object"),
        (b'{"sessionId":"s","message":"a","message":"b"}', "body", "names a member twice"),
    ],
)
def test_a_body_against_the_rules_is_a_bad_request(payload: bytes, field: str, issue: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(payload)
    assert caught.value.issues == (FieldIssue(field, issue),)
    reply = DIALECT.encode_error(caught.value)
    assert (reply.status, reply.body) == (400, b'{"error":"Invalid request payload"}')


@pytest.mark.parametrize(
    "head",
    [
        request_head("/chat", ("content-type", "text/plain")),
        request_head("/chat", ("content-type", "application/x-www-form-urlencoded")),
        bare_head("/chat"),
    ],
)
def test_a_body_of_another_type_is_an_invalid_payload(head: RequestHead) -> None:
    with pytest.raises(BadRequest):
        decode(BODY, head)


def test_another_charset_is_unsupported() -> None:
    head = request_head("/chat", ("content-type", "application/json; charset=utf-16"))
    with pytest.raises(HttpError) as caught:
        decode(BODY, head)
    assert caught.value.http_status == 415


def test_the_table_has_a_row_for_every_kind() -> None:
    assert set(ROWS) == set(ERROR_KINDS)


@pytest.mark.parametrize(("kind", "row"), ROWS.items())
def test_an_error_is_a_status_with_a_documented_text(kind: str, row: tuple[int, str]) -> None:
    reply = DIALECT.encode_error(error_of(kind))
    status, text = row
    assert reply.status == status
    assert reply.body == b'{"error":"' + text.encode() + b'"}'
    fields = dict(reply.headers)
    assert fields["content-type"] == "application/json; charset=utf-8"
    assert fields["cache-control"] == "no-store"
    assert ("retry-after" in fields) == (status in (429, 503))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (HttpError(404), "Not found"),
        (HttpError(405, headers={"allow": "POST"}), "Method not allowed"),
        (HttpError(415), "Unsupported media type"),
    ],
)
def test_a_status_of_http_keeps_its_number(error: HttpError, text: str) -> None:
    reply = DIALECT.encode_error(error)
    assert reply.status == error.http_status
    assert json.loads(reply.body) == {"error": text}
    assert dict(reply.headers).get("allow") == error.headers.get("allow")


def test_a_stream_has_the_headers_that_the_vendor_sends() -> None:
    reply = encoder().head()
    assert (reply.status, reply.body) == (200, b"")
    assert dict(reply.headers) == {
        "content-type": "application/x-ndjson; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }


def test_one_answer_has_the_headers_of_a_json_answer() -> None:
    fields = dict(encoder("one-shot").head().headers)
    assert fields["content-type"] == "application/json; charset=utf-8"
    assert fields["cache-control"] == "no-store"


def test_a_silence_is_filled_with_an_empty_line_and_never_on_the_route_of_one_answer() -> None:
    assert list(encoder().keep_alive()) == [b"\n"]
    assert list(encoder("one-shot").keep_alive()) == []


@pytest.mark.parametrize("case", cases())
def test_the_script_of_the_vendor_s_page_reads_each_body_message_as_whole_lines(case: str) -> None:
    encode = encoder()
    shown = ""
    finished = ""
    for event in load(case):
        for record in [*encode.encode(event)]:
            # The page's script: decode the read, split it, parse each line that is not blank.
            for line in filter(str.strip, record.decode("latin-1").split("\n")):
                said = json.loads(line)
                shown += said.get("token", "")
                finished = said.get("message", finished)
    assert shown == "".join(e.text for e in load(case) if isinstance(e, TextDelta))
    assert bool(finished) == isinstance(load(case)[-1], TurnFinished)


def message_after(*events: TurnEvent, text: str, framing: str = "ndjson") -> str:
    encode = encoder(framing)
    finished = TurnFinished(text, "stop", None, 1, ())
    whole = [TurnStarted(), *events, RoundFinished("stop", None), finished]
    records = [record for event in whole for record in encode.encode(event)]
    message: str = json.loads(records[-1])["message"]
    assert encode.shown(finished) == message
    return message


@pytest.mark.parametrize("framing", ["ndjson", "one-shot"])
@pytest.mark.parametrize(
    ("guards", "message"),
    [
        ([GuardFired("k", "block", "d", None)], REFUSAL),
        ([GuardFired("k", "redirect", "d", " Instead. ")], " Instead. "),
        ([GuardFired("k", "redirect", "d", None)], REFUSAL),
        ([GuardFired("k", "escalate", "d", None)], "Said."),
        ([GuardFired("k", "redirect", "d", "x"), GuardFired("k", "block", "d", None)], REFUSAL),
        ([GuardFired("k", "block", "d", None), GuardFired("k", "escalate", "d", None)], REFUSAL),
    ],
)
def test_the_last_guard_that_acted_has_the_last_word(
    framing: str, guards: list[TurnEvent], message: str
) -> None:
    assert message_after(*guards, text=" Said. ", framing=framing) == message
