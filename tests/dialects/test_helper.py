import json
from typing import Final

import pytest

from gateway.dialects.helper import Helper
from gateway.errors import (
    BadRequest,
    Conflict,
    ContextLength,
    Deadline,
    Draining,
    Forbidden,
    GatewayError,
    HttpError,
    Internal,
    MailboxNotFound,
    NotFound,
    NotOwner,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    StoreUnavailable,
    Unauthorized,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.messages import (
    ChatRequest,
    DialectOptions,
    Headers,
    RequestHead,
    StreamFormat,
)

HELPER: Final = Helper()
TEXT: Final = {"type": "text", "text": "hi"}
DOCUMENTED: Final = {"role": "user", "content": "hi", "id": "msg_1234"}
# What `@helperai/client` 0.4.5 posts, and what the default transport of AI SDK 5 does.
REACT: Final[dict[str, object]] = {
    "id": "chat1",
    "message": {"id": "u1", "role": "user", "content": "hi", "parts": [TEXT]},
    "conversationSlug": "abc123",
    "tools": {"getX": {"description": "d", "parameters": {"a": {"type": "number"}}}},
    "customerSpecificTools": False,
}
# What the same client posts with `@ai-sdk/ui-utils` 1.0.0 to 1.1.9, which keeps no parts.
EARLY: Final = REACT | {
    "message": {"id": "u1", "role": "user", "content": "hi", "createdAt": "2026-01-01T00:00:00Z"}
}
SDK5: Final = {
    "message": {"id": "u1", "role": "user", "parts": [TEXT]},
    "conversationSlug": "abc123",
}


def head(accept: str | None = None, content_type: str | None = "application/json") -> RequestHead:
    fields = [("content-type", content_type), ("accept", accept)]
    sent = tuple((name, value) for name, value in fields if value is not None)
    return RequestHead("POST", "/api/chat", "", Headers(sent))


def decode(
    body: object, *, accept: str | None = None, stream_format: StreamFormat = "auto"
) -> ChatRequest:
    options = DialectOptions(unknown_conversation="reject", stream_format=stream_format)
    return HELPER.decode_request(head(accept), json.dumps(body).encode(), options)


def said(message: object, **more: object) -> dict[str, object]:
    return {"message": message, "conversationSlug": "abc123", **more}


def test_the_documented_request() -> None:
    body = b"""{"message":{"role":"user","content":"How can I update my shipping address?",
        "id":"msg_1234"},"conversationSlug":"abc123def456"}"""
    assert HELPER.decode_request(head(), body, DialectOptions()) == ChatRequest(
        "abc123def456",
        "How can I update my shipping address?",
        framing="ui-message-stream",
        message_id="msg_1234",
    )


def test_the_request_of_helpers_own_client() -> None:
    assert decode(REACT) == ChatRequest("abc123", "hi", framing="data-stream", message_id="u1")


def test_the_request_of_the_newer_sdk_has_parts_only() -> None:
    assert decode(SDK5) == ChatRequest("abc123", "hi", framing="ui-message-stream", message_id="u1")


FORMATS: Final = [
    (None, REACT, "data-stream"),
    ("*/*", REACT, "data-stream"),
    ("application/json, text/plain", REACT, "data-stream"),
    ("text/event-stream-but-not-quite", REACT, "data-stream"),
    ("text/event-stream;q=0, */*", REACT, "data-stream"),
    ("text/event-stream; charset=utf-8; Q=0.000", REACT, "data-stream"),
    ("text/event-stream", REACT, "ui-message-stream"),
    ("application/json, Text/Event-Stream;q=0.5", REACT, "ui-message-stream"),
    ("text/event-stream;q=0.01", REACT, "ui-message-stream"),
    (None, SDK5, "ui-message-stream"),
    (None, said(DOCUMENTED), "ui-message-stream"),
    (None, said(DOCUMENTED | {"parts": [TEXT]}), "data-stream"),
    (None, said(DOCUMENTED | {"createdAt": "2026-01-01T00:00:00Z"}), "data-stream-early"),
    (None, said(DOCUMENTED | {"toolInvocations": []}), "data-stream-early"),
    (None, EARLY, "data-stream-early"),
    (None, said(DOCUMENTED, customerSpecificTools=False), "data-stream"),
    (None, said({"role": "user", "parts": [TEXT]}, customerSpecificTools=True), "data-stream"),
    (None, said({"role": "user", "parts": [TEXT], "createdAt": 1}), "ui-message-stream"),
    (None, said({"role": "user", "content": None, "parts": [TEXT]}), "ui-message-stream"),
]


@pytest.mark.parametrize(("accept", "body", "framing"), FORMATS)
def test_the_request_tells_the_stream_format(
    accept: str | None, body: object, framing: str
) -> None:
    assert decode(body, accept=accept).framing == framing


@pytest.mark.parametrize("pinned", ["data-stream", "ui-message-stream"])
@pytest.mark.parametrize(("accept", "body"), [r[:2] for r in FORMATS if "early" not in r[2]])
def test_a_pinned_format_asks_nothing(
    accept: str | None, body: object, pinned: StreamFormat
) -> None:
    assert decode(body, accept=accept, stream_format=pinned).framing == pinned


def test_a_pinned_data_stream_is_still_one_that_an_early_client_reads() -> None:
    assert decode(EARLY, stream_format="data-stream").framing == "data-stream-early"
    assert decode(EARLY, stream_format="ui-message-stream").framing == "ui-message-stream"
    assert decode(EARLY, accept="text/event-stream").framing == "ui-message-stream"


def test_accept_may_be_sent_in_several_fields() -> None:
    fields = (
        ("content-type", "application/json"),
        ("accept", "a/b"),
        ("accept", "text/event-stream"),
    )
    request = RequestHead("POST", "/api/chat", "", Headers(fields))
    body = json.dumps(REACT).encode()
    chat = HELPER.decode_request(request, body, DialectOptions())
    assert chat.framing == "ui-message-stream"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": ""}, ""),
        ({"content": " \n"}, " \n"),
        ({"content": "whole", "parts": [TEXT]}, "whole"),
        ({"content": "", "parts": [TEXT, TEXT]}, "hihi"),
        ({"parts": []}, ""),
        ({"parts": [{"type": "step-start"}, TEXT, {"type": "x"}, TEXT, 7]}, "hihi"),
        ({"content": "hi", "parts": None}, "hi"),
        ({"content": "hi", "experimental_attachments": []}, "hi"),
        ({"content": "hi", "experimental_attachments": None}, "hi"),
    ],
)
def test_text_is_content_or_the_text_parts(message: dict[str, object], text: str) -> None:
    assert decode(said({"role": "user", **message})).text == text


def test_a_posted_assistant_message_is_gone_on_with() -> None:
    invocation = {"state": "result", "toolCallId": "c", "toolName": "t", "args": {}, "result": 1}
    message = {"id": "a1", "role": "assistant", "content": "", "toolInvocations": [invocation]}
    chat = decode(said(message))
    assert (chat.role, chat.message_id, chat.continues) == ("assistant", "a1", "a1")
    assert chat.results == {"c": "1"}
    assert decode(said({**message, "role": "user"})).results == {}
    assert decode(said(DOCUMENTED)).continues is None
    assert decode(said({"role": "assistant", "content": "x"})).continues is None


@pytest.mark.parametrize("message_id", [None, ""])
def test_a_missing_id_is_left_to_the_gateway(message_id: object) -> None:
    assert decode(said({"role": "user", "content": "x", "id": message_id})).message_id is None


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"message": DOCUMENTED},
        {"message": DOCUMENTED, "conversationSlug": None},
        {"message": DOCUMENTED, "conversationSlug": 7},
        {"conversationSlug": "abc123"},
        said(None),
        said("hi"),
        said([DOCUMENTED]),
        said({"content": "hi"}),
        said({"role": "system", "content": "hi"}),
        said({"role": ["user"], "content": "hi"}),
        said({"role": "user"}),
        said({"role": "user", "content": None}),
        said({"role": "user", "content": 7}),
        said({"role": "user", "content": 7, "parts": [TEXT]}),
        said({"role": "user", "content": "a\0b"}),
        said({"role": "user", "content": "\ud800"}),
        said({"role": "user", "parts": TEXT}),
        said({"role": "user", "parts": [{"type": "text"}]}),
        said({"role": "user", "parts": [{"type": "text", "text": 7}]}),
        said(DOCUMENTED | {"id": 7}),
        said(DOCUMENTED | {"id": "x" * 257}),
        said(DOCUMENTED | {"id": "a\nb"}),
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_a_body_that_breaks_the_rules(body: object) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(body)
    reply = HELPER.encode_error(caught.value)
    assert (reply.status, json.loads(reply.body)) == (400, {"error": "Invalid request"})


@pytest.mark.parametrize("slug", ["", "a/b", "../x", "ü", "a" * 129, "a b"])
def test_a_slug_that_can_be_none_is_not_found(slug: str) -> None:
    with pytest.raises(NotFound):
        decode({"message": DOCUMENTED, "conversationSlug": slug})


@pytest.mark.parametrize(
    "message",
    [
        DOCUMENTED | {"experimental_attachments": [{"name": "a.png", "url": "data:,"}]},
        {"role": "user", "parts": [TEXT, {"type": "file", "mediaType": "image/png", "url": "x"}]},
    ],
)
def test_attachments_are_refused_in_clear_words(message: object) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(said(message))
    reply = HELPER.encode_error(caught.value)
    assert reply.status == 400
    assert json.loads(reply.body) == {"error": "attachments are not supported"}


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json; charset=latin-1"])
def test_only_json_is_taken(content_type: str | None) -> None:
    with pytest.raises(HttpError) as caught:
        HELPER.decode_request(head(None, content_type), b"{}", DialectOptions())
    assert HELPER.encode_error(caught.value).status == 415


ERRORS: Final = [
    (BadRequest(), 400, "Invalid request"),
    (Unauthorized(), 401, "Invalid token"),
    (NotOwner(), 401, "Unauthorized"),
    (Forbidden(), 401, "Unauthorized"),
    (MailboxNotFound(), 404, "Mailbox not found"),
    (NotFound(), 404, "Conversation not found"),
    (Conflict(), 409, "Conversation is busy"),
    (PayloadTooLarge(), 413, "Message too large"),
    (ContextLength(), 413, "Message too large"),
    (RateLimited(retry_after=7), 429, "Too many requests"),
    (UpstreamError(), 500, "Internal server error"),
    (UpstreamRateLimited(), 500, "Internal server error"),
    (UpstreamUnavailable(), 500, "Internal server error"),
    (UpstreamTimeout(), 500, "Internal server error"),
    (Deadline(), 500, "Internal server error"),
    (Internal("secret"), 500, "Internal server error"),
    (Overloaded(), 503, "Service unavailable"),
    (Draining(), 503, "Service unavailable"),
    (StoreUnavailable(), 503, "Service unavailable"),
    (HttpError(404), 404, "Not found"),
    (HttpError(405, headers={"Allow": "POST"}), 405, "Method not allowed"),
]


@pytest.mark.parametrize(("error", "status", "text"), ERRORS, ids=lambda row: type(row).__name__)
def test_errors_have_the_documented_statuses_and_texts(
    error: GatewayError, status: int, text: str
) -> None:
    reply = HELPER.encode_error(error)
    assert (reply.status, json.loads(reply.body)) == (status, {"error": text})
    fields = Headers(reply.headers)
    assert ("retry-after" in fields) == (status in (429, 503))
    assert ("www-authenticate" in fields) == (status == 401)
    assert fields.get("allow") == ("POST" if status == 405 else "")


def test_every_error_has_a_row() -> None:
    def all_of(root: type[GatewayError]) -> list[type[GatewayError]]:
        return [root, *(kind for child in root.__subclasses__() for kind in all_of(child))]

    for kind in all_of(GatewayError):
        error = HttpError(404) if kind is HttpError else kind()
        assert 400 <= HELPER.encode_error(error).status < 600
