import json
from collections.abc import Sequence
from typing import Any, Final

import pytest

from gateway.dialects.hyperleap import Hyperleap
from gateway.errors import (
    ERROR_KINDS,
    BadRequest,
    FieldIssue,
    HttpError,
    NotFound,
)
from gateway.events import (
    CitationFound,
    GuardFired,
    ModerationReported,
    RoundFinished,
    TextDelta,
    ToolCallEnded,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.framing.asciijson import RECORD_BYTES
from gateway.messages import ChatRequest, DialectOptions, RequestHead, Usage
from gateway.ports.codecs import Encoder
from gateway.ports.routes import CredentialSource, Route
from gateway.replies import TEXTS
from tests.dialects.rows import KIND_ROWS
from tests.golden import REFUSAL, cases, context, error_of, load
from tests.heads import bare_head, request_head

DIALECT: Final = Hyperleap()
OPTIONS: Final = DialectOptions()
TOOLS: Final = DialectOptions(tool_results=True)
PATH: Final = "/conversations/c-1/chat-http2"

ROWS: Final = KIND_ROWS | {"internal": (500, "internal_server_error")}


def head(*fields: tuple[str, str], path: str = PATH, conversation_id: str = "c-1") -> RequestHead:
    return request_head(path, *fields, method="PATCH", id=conversation_id)


def decode(body: bytes, request: RequestHead | None = None) -> ChatRequest:
    return DIALECT.decode_request(request or head(), body, OPTIONS)


def encoder(framing: str = "array", options: DialectOptions = OPTIONS) -> Encoder:
    return DIALECT.encoder(context(framing, options))


def items(events: Sequence[TurnEvent], options: DialectOptions = OPTIONS) -> list[Any]:
    encode = encoder("ndjson", options).encode
    return [json.loads(record) for event in events for record in encode(event)]


def finished(text: str = "", citations: tuple[CitationFound, ...] = ()) -> TurnFinished:
    return TurnFinished(text, "stop", Usage(3, 4), 9, citations)


def test_it_has_every_documented_route_twice() -> None:
    words = ["chat-http2", "continue", "chat", "continue-sync", "chat-sse", "continue-sse"]
    assert DIALECT.name == "hyperleap"
    assert set(DIALECT.routes) == {
        Route("PATCH", f"{prefix}/conversations/{{id}}/{word}")
        for prefix in ("", "/api")
        for word in words
    }
    assert DIALECT.credentials == (CredentialSource("x-hl-api-key"),)
    assert DIALECT.conflict == "reject"


@pytest.mark.parametrize(
    ("word", "accept", "framing"),
    [
        ("chat-http2", None, "array"),
        ("chat-http2", "application/json", "array"),
        ("chat-http2", "*/*", "array"),
        ("chat-http2", "", "array"),
        ("chat-http2", "text/plain", "array"),
        ("chat-http2", "text/event-stream", "sse"),
        ("continue", "Text/Event-Stream; charset=utf-8", "sse"),
        ("continue", "application/x-ndjson", "ndjson"),
        ("continue", "text/html, application/x-ndjson;q=0.9, */*;q=0.8", "ndjson"),
        ("continue", "application/json, text/event-stream", "array"),
        ("continue", "text/event-stream, application/json", "sse"),
        ("continue", "application/json;q=0.5, text/event-stream", "sse"),
        ("continue", "text/event-stream;q=0", "array"),
        ("continue", "text/event-stream;q=0.000, application/x-ndjson;q=0.001", "ndjson"),
        ("chat", "text/event-stream", "one-shot"),
        ("continue-sync", None, "one-shot"),
        ("chat-sse", "application/json", "sse"),
        ("continue-sse", None, "sse"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_route_and_accept_choose_the_framing(
    prefix: str, word: str, accept: str | None, framing: str
) -> None:
    fields = () if accept is None else (("accept", accept),)
    request = head(*fields, path=f"{prefix}/conversations/c-1/{word}")
    assert decode(b'{"message":"m"}', request) == ChatRequest("c-1", "m", framing)


def test_accept_may_be_sent_in_several_fields() -> None:
    request = head(("accept", "text/html"), ("accept", "application/x-ndjson"))
    assert decode(b'{"message":"m"}', request).framing == "ndjson"


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "text/json",
        "application/*+json",
        "application/vnd.api+json",
        "Application/Problem+JSON; charset=UTF-8",
    ],
)
def test_every_documented_media_type_is_taken(media_type: str) -> None:
    request = head(("content-type", media_type))
    assert decode(b'{"personaId":"p","message":" m "}', request).text == " m "


@pytest.mark.parametrize(
    "request_with_another_type",
    [
        head(("content-type", "text/plain")),
        head(("content-type", "application/jsonp")),
        head(("content-type", "text/vnd.api+json")),
        head(("content-type", "application/+json")),
        head(("content-type", "application/json; charset=utf-16")),
        bare_head(PATH, "PATCH", id="c-1"),
    ],
)
def test_a_body_of_another_type_is_unsupported(request_with_another_type: RequestHead) -> None:
    with pytest.raises(HttpError) as caught:
        decode(b'{"message":"m"}', request_with_another_type)
    assert caught.value.http_status == 415


@pytest.mark.parametrize(
    ("body", "field", "issue"),
    [
        (b'{"message":""}', "message", "must not be empty"),
        (b"{}", "message", "is required"),
        (b'{"message":{}}', "message", "must be a string"),
        (b'{"message":"\\u0000"}', "message", "must not hold the character U+0000"),
        (b'{"message":"a","message":"b"}', "body", "names a member twice"),
        (b"", "body", "is not JSON"),
    ],
)
def test_a_body_against_the_rules_is_a_bad_request_with_details(
    body: bytes, field: str, issue: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(body)
    assert caught.value.issues == (FieldIssue(field, issue),)
    assert json.loads(DIALECT.encode_error(caught.value).body) == {
        "error": {
            "code": "bad_request",
            "message": TEXTS["bad_request"],
            "details": [{"field": field, "issue": issue}],
        }
    }


def test_a_conversation_id_that_can_be_none_is_not_found() -> None:
    with pytest.raises(NotFound):
        decode(b"{", head(conversation_id="a b"))


def test_the_table_has_a_row_for_every_kind() -> None:
    assert set(ROWS) == set(ERROR_KINDS)


@pytest.mark.parametrize(("kind", "row"), ROWS.items())
def test_an_error_is_a_status_with_code_and_message(kind: str, row: tuple[int, str]) -> None:
    reply = DIALECT.encode_error(error_of(kind))
    status, code = row
    assert reply.status == status
    error = json.loads(reply.body)["error"]
    assert error["code"] == code
    assert error["message"] in TEXTS.values()
    assert list(error) == ["code", "message"]
    fields = dict(reply.headers)
    assert fields["content-type"] == "application/json; charset=utf-8"
    assert fields["cache-control"] == "no-store"
    assert ("retry-after" in fields) == (status in (429, 503))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (HttpError(404), "not_found", "Not found"),
        (HttpError(405, headers={"allow": "PATCH"}), "bad_request", "Method not allowed"),
        (HttpError(414), "bad_request", "Request address too long"),
        (HttpError(415), "bad_request", "Unsupported media type"),
    ],
)
def test_a_status_of_http_keeps_its_number(error: HttpError, code: str, message: str) -> None:
    reply = DIALECT.encode_error(error)
    assert reply.status == error.http_status
    assert json.loads(reply.body) == {"error": {"code": code, "message": message}}
    assert dict(reply.headers).get("allow") == error.headers.get("allow")


@pytest.mark.parametrize(
    ("framing", "media_type"),
    [
        ("array", "application/json; charset=utf-8"),
        ("sse", "text/event-stream"),
        ("ndjson", "application/x-ndjson; charset=utf-8"),
        ("one-shot", "application/json; charset=utf-8"),
    ],
)
def test_each_framing_says_its_media_type(framing: str, media_type: str) -> None:
    fields = dict(encoder(framing).head().headers)
    assert fields["content-type"] == media_type
    assert fields["cache-control"] == (
        "no-store" if framing == "one-shot" else "no-cache, no-transform"
    )
    assert fields["x-accel-buffering"] == "no"


@pytest.mark.parametrize(
    ("framing", "silence"),
    [("array", b"\n"), ("sse", b": keep-alive\n\n"), ("ndjson", b"\n")],
)
def test_the_first_silence_opens_the_stream_and_later_ones_say_nothing(
    framing: str, silence: bytes
) -> None:
    stream = encoder(framing)
    (opening,) = stream.keep_alive()
    assert b'"content":""' in opening
    assert opening.startswith(b"[") == (framing == "array")
    assert list(stream.keep_alive()) == [silence]
    assert list(stream.encode(TurnStarted())) == []
    assert list(stream.keep_alive()) == [silence]


def test_one_answer_fills_no_silence() -> None:
    assert list(encoder("one-shot").keep_alive()) == []


def public_client(reads: Sequence[bytes]) -> str:
    """What the known public client makes of a stream: it parses each read as whole items."""
    text = ""
    for number, read in enumerate(reads):
        part = read.decode()
        if part.strip() in ("", "]"):
            continue
        assert part[0] == ("," if number else "[")
        for item in json.loads(f"[{part[1:]}]"):
            if number == 0:
                text += item["choice"]["message"]["content"]
            else:
                text += (item.get("choice") or {}).get("message", {}).get("content") or ""
    assert reads[-1] == b"]"
    return text


@pytest.mark.parametrize("case", [case for case in cases() if not case.startswith("guard")])
def test_the_public_client_reads_each_body_message_as_whole_items(case: str) -> None:
    stream = encoder()
    reads: list[bytes] = []
    for event in load(case):
        reads += stream.encode(event)
        if not isinstance(event, (TurnFinished, TurnFailed)):
            reads += stream.keep_alive()
    assert public_client(reads) == "".join(e.text for e in load(case) if isinstance(e, TextDelta))


def test_a_turn_that_fails_ends_with_an_item_that_says_so() -> None:
    last = items([TurnStarted(), TextDelta("Half"), TurnFailed("deadline", 3)])[-1]
    assert last["choice"]["finish_reason"] == "error"
    assert last["choice"]["message"]["content"] == ""
    assert (last["usage"], last["citations"]) == (None, None)


def test_the_last_item_has_usage_and_its_sum() -> None:
    last = items([TurnStarted(), finished()])[-1]
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_tool_items_come_only_where_the_tenant_turned_them_on() -> None:
    events: list[TurnEvent] = [
        ToolCallEnded("c", "lookup", "{}"),
        ToolReturned("c", "lookup", "{}", "x" * 20_000, 3, "ok"),
    ]
    assert items(events) == []
    call, *results = [item["choice"]["message"] for item in items(events, TOOLS)]
    assert call == {"role": "assistant", "content": "", "toolCallId": "c", "name": "lookup"}
    assert {(it["role"], it["toolCallId"], it["name"]) for it in results} == {
        ("tool", "c", "lookup")
    }
    assert "".join(it["content"] for it in results) == "x" * 20_000


@pytest.mark.parametrize(
    ("guard", "text", "filtered"),
    [
        (GuardFired("k", "block", "d", None), REFUSAL, True),
        (GuardFired("k", "redirect", "d", "Instead."), "Instead.", True),
        (GuardFired("k", "redirect", "d", None), REFUSAL, True),
        (GuardFired("k", "escalate", "d", None), "", False),
    ],
)
def test_a_guard_shows_its_text_and_is_a_moderation_result(
    guard: GuardFired, text: str, filtered: bool
) -> None:
    choices = [item["choice"] for item in items([guard])]
    assert "".join(choice["message"]["content"] for choice in choices) == text
    assert [choice["moderation_results"] for choice in choices if choice["moderation_results"]] == [
        {"categoryResults": [{"category": "k", "filtered": filtered, "severity": None}]}
    ]


def test_one_answer_shows_what_a_guard_put_in_place_of_the_reply() -> None:
    encode = encoder("one-shot")
    events: list[TurnEvent] = [
        TurnStarted(),
        TextDelta("Forbidden."),
        GuardFired("k", "redirect", "d", "Instead."),
        ModerationReported("hate", False, "safe"),
        GuardFired("k2", "escalate", "d", None),
        RoundFinished("stop", None),
        finished("Forbidden."),
    ]
    (body,) = [record for event in events for record in encode.encode(event)]
    choice = json.loads(body)["choices"][0]
    assert choice["message"]["content"] == "Instead." == encode.shown(finished("Forbidden."))
    assert [it["category"] for it in choice["moderation_results"]["categoryResults"]] == [
        "k",
        "hate",
        "k2",
    ]


def test_one_answer_keeps_a_bounded_number_of_moderation_results() -> None:
    encode = encoder("one-shot").encode
    for number in range(1000):
        encode(ModerationReported(str(number), False, None))
    (body,) = encode(finished())
    results = json.loads(body)["choices"][0]["moderation_results"]["categoryResults"]
    assert [result["category"] for result in results] == [str(number) for number in range(64)]


def test_what_comes_from_outside_cannot_make_an_item_too_long() -> None:
    huge = "\U0001f680" * 50_000
    found = CitationFound("1", huge, huge, huge)
    events: list[TurnEvent] = [
        TurnStarted(),
        TextDelta(huge),
        ToolCallEnded(huge, huge, "{}"),
        ToolReturned(huge, huge, "{}", huge, 1, "ok"),
        GuardFired(huge, "redirect", huge, huge),
        ModerationReported(huge, True, huge),
        found,
        RoundFinished("stop", None),
        finished(huge, (found,) * 9),
    ]
    encode = encoder("sse", TOOLS).encode
    records = [record for event in events for record in encode(event)]
    assert max(map(len, records)) < RECORD_BYTES
    assert min(map(len, records)) > 0


def test_citations_that_need_several_items_keep_their_order() -> None:
    citations = tuple(
        CitationFound(str(n), f"https://shop.example/{n}", "Page", "word " * 700)
        for n in range(1, 12)
    )
    last_items = items([TurnStarted(), finished("", citations)])
    groups = [item["citations"] for item in last_items if item["citations"]]
    assert len(groups) > 1
    assert [it["index"] for group in groups for it in group] == [c.index for c in citations]
    assert groups[-1] == last_items[-1]["citations"]


def test_an_address_that_is_too_long_is_left_out_rather_than_cut() -> None:
    found = CitationFound("1", "https://shop.example/" + "x" * 3000, "Page", None)
    citation = items([TurnStarted(), finished("", (found,))])[-1]["citations"][0]
    assert (citation["link"], citation["sourceUrl"], citation["sourceName"]) == (None, None, "Page")
