import json
from typing import Final

import pytest

from gateway.dialects.hyponema import Hyponema
from gateway.errors import (
    ERROR_KINDS,
    BadRequest,
    FieldIssue,
    HttpError,
    NotFound,
)
from gateway.events import (
    GuardFired,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolOutcome,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnStarted,
)
from gateway.messages import ChatRequest, DialectOptions, RequestHead
from gateway.ports.codecs import Encoder
from gateway.ports.routes import CredentialSource, Route
from gateway.readers.hyponema import Reader
from gateway.replies import TEXTS
from tests.dialects.rows import KIND_ROWS
from tests.golden import context, error_of
from tests.heads import bare_head, request_head

DIALECT: Final = Hyponema()
OPTIONS: Final = DialectOptions()
PATH: Final = "/sessions/s-1/messages"

# The vendor's `error` members on an HTTP answer.
ROWS: Final = KIND_ROWS


def head(*fields: tuple[str, str], session_id: str = "s-1") -> RequestHead:
    return request_head(PATH, *fields, id=session_id)


def decode(body: bytes, request: RequestHead | None = None) -> ChatRequest:
    return DIALECT.decode_request(request or head(), body, OPTIONS)


def encoder() -> Encoder:
    return DIALECT.encoder(context("sse"))


def test_it_has_the_one_documented_route_and_credential() -> None:
    assert DIALECT.name == "hyponema"
    assert DIALECT.routes == (Route("POST", "/sessions/{id}/messages"),)
    assert DIALECT.credentials == (CredentialSource("authorization", bearer=True),)
    assert DIALECT.conflict == "reject"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"text":"Can you help me?"}', "Can you help me?"),
        (b'{"text":" "}', " "),
        (b'{"text":"x","stream":true,"nested":{"a":[1]}}', "x"),
        (b'{"text":"\\ud83d\\ude80"}', "\U0001f680"),
        (json.dumps({"text": "\U0001f680" * 8000}).encode(), "\U0001f680" * 8000),
    ],
)
def test_a_message_is_taken_as_it_is(body: bytes, text: str) -> None:
    assert decode(body) == ChatRequest("s-1", text, "sse")


@pytest.mark.parametrize(
    ("body", "field", "issue"),
    [
        (b'{"text":""}', "text", "must have 1 to 8000 characters"),
        (json.dumps({"text": "x" * 8001}).encode(), "text", "must have 1 to 8000 characters"),
        (b'{"message":"x"}', "text", "is required"),
        (b'{"text":["x"]}', "text", "must be a string"),
        (b'{"text":"a\\u0000"}', "text", "must not hold the character U+0000"),
        (b'{"text":"a","text":"b"}', "body", "names a member twice"),
        (b"text=a", "body", "is not JSON"),
    ],
)
def test_a_body_against_the_rules_is_a_bad_request(body: bytes, field: str, issue: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(body)
    assert caught.value.issues == (FieldIssue(field, issue),)


@pytest.mark.parametrize(
    "request_with_another_type",
    [
        head(("content-type", "text/plain")),
        head(("content-type", "application/x-www-form-urlencoded")),
        head(("content-type", "application/json; charset=latin-1")),
        bare_head(PATH, id="s-1"),
    ],
)
def test_a_body_of_another_type_is_unsupported(request_with_another_type: RequestHead) -> None:
    with pytest.raises(HttpError) as caught:
        decode(b'{"text":"x"}', request_with_another_type)
    assert caught.value.http_status == 415


def test_a_session_id_that_can_be_none_is_not_found_before_anything_else() -> None:
    with pytest.raises(NotFound):
        decode(b"{", head(("content-type", "text/plain"), session_id="a/b"))


def test_the_table_has_a_row_for_every_kind() -> None:
    assert set(ROWS) == set(ERROR_KINDS)


@pytest.mark.parametrize(("kind", "row"), ROWS.items())
def test_an_error_is_a_status_with_detail_and_kind(kind: str, row: tuple[int, str]) -> None:
    reply = DIALECT.encode_error(error_of(kind))
    status, shown_kind = row
    assert reply.status == status
    body = json.loads(reply.body)
    assert body == {"detail": TEXTS[error_of(shown_kind).kind], "error_kind": shown_kind}
    fields = dict(reply.headers)
    assert fields["content-type"] == "application/json; charset=utf-8"
    assert fields["cache-control"] == "no-store"
    assert fields["x-content-type-options"] == "nosniff"
    assert ("retry-after" in fields) == (status in (429, 503))
    assert fields.get("www-authenticate") == ("Bearer" if status == 401 else None)


@pytest.mark.parametrize(
    ("error", "detail", "kind"),
    [
        (HttpError(404), "Not found", "not_found"),
        (HttpError(405, headers={"allow": "POST"}), "Method not allowed", "bad_request"),
        (HttpError(415), "Unsupported media type", "bad_request"),
        (HttpError(431), "Request header fields too large", "bad_request"),
    ],
)
def test_a_status_of_http_keeps_its_number(error: HttpError, detail: str, kind: str) -> None:
    reply = DIALECT.encode_error(error)
    assert reply.status == error.http_status
    assert json.loads(reply.body) == {"detail": detail, "error_kind": kind}
    assert dict(reply.headers).get("allow") == error.headers.get("allow")


def test_a_stream_is_not_cached_and_not_buffered() -> None:
    reply = encoder().head()
    assert (reply.status, reply.body) == (200, b"")
    assert dict(reply.headers) == {
        "content-type": "text/event-stream",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
    }


def test_a_silence_is_filled_with_a_comment_even_before_the_first_event() -> None:
    assert list(encoder().keep_alive()) == [b": keep-alive\n\n"]


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_a_turn_that_fails_says_its_own_kind(kind: str) -> None:
    (record,) = encoder().encode(TurnFailed(error_of(kind).kind, 3))
    data = json.loads(record.removeprefix(b"event: error\ndata: "))
    assert data == {"detail": TEXTS[error_of(kind).kind], "error_kind": kind}


def arguments_shown(fragments: list[str], whole: str) -> list[str]:
    encode = encoder().encode
    events: list[TurnEvent] = [
        TurnStarted(),
        ToolCallStarted("c", "t"),
        *(ToolCallDelta("c", fragment) for fragment in fragments),
        ToolCallEnded("c", "t", whole),
    ]
    reader = Reader()
    for event in events:
        for record in encode(event):
            reader.feed(record)
    return reader.arguments["c"][1:]


@pytest.mark.parametrize(
    ("fragments", "whole", "shown"),
    [
        ([], "{}", ["", "{}"]),
        (["{}"], "{}", ["", "{}"]),
        (['{"a"', "", ":1}"], '{"a":1}', ["", '{"a"', '{"a":1}']),
        (['{"a"'], '{"a":1}', ["", '{"a"', '{"a":1}']),
        (["[1]"], "{}", ["", "[1]"]),
    ],
)
def test_arguments_are_shown_whole_so_far_and_never_take_a_word_back(
    fragments: list[str], whole: str, shown: list[str]
) -> None:
    assert arguments_shown(fragments, whole) == shown


def test_long_arguments_cost_bytes_in_proportion_and_end_whole() -> None:
    whole = '{"text":"' + "word " * 20_000 + '"}'
    shown = arguments_shown([whole[at : at + 5] for at in range(0, len(whole), 5)], whole)
    assert shown[-1] == whole
    assert sum(map(len, shown)) < 12 * len(whole)


@pytest.mark.parametrize(
    ("outcome", "result", "written"),
    [
        ("ok", '{"a": [1]}', {"a": [1]}),
        ("ok", "twelve", "twelve"),
        ("ok", "12", 12),
        ("ok", "null", None),
        ("ok", "", ""),
        ("error", "it broke", {"error": "it broke"}),
        ("timeout", '{"error": "too slow", "after": 3}', {"error": "too slow", "after": 3}),
        ("denied", '{"reason": "policy"}', {"error": {"reason": "policy"}}),
        ("unknown_tool", "[", {"error": "["}),
    ],
)
def test_a_result_is_json_if_the_tool_gave_json_and_an_error_if_it_failed(
    outcome: ToolOutcome, result: str, written: object
) -> None:
    (record,) = encoder().encode(ToolReturned("c", "t", '{"x": "é"}', result, 37, outcome))
    assert json.loads(record.removeprefix(b"event: tool_result\ndata: ")) == {
        "call_id": "c",
        "name": "t",
        "arguments": {"x": "é"},
        "result": written,
        "latency_ms": 37,
    }


def test_only_a_redirect_has_a_replacement() -> None:
    (record,) = encoder().encode(GuardFired("phrases", "escalate", "no_go", "stray"))
    assert json.loads(record.removeprefix(b"event: guard\ndata: "))["replacement"] is None
