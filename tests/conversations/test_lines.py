import orjson
import pytest

from gateway.conversations.lines import LINE_BYTES, BadLine, Defaults, from_line, to_line
from gateway.messages import (
    NO_TERMS,
    Conversation,
    ConversationKey,
    KeptCall,
    Message,
    Terms,
)

NOW = 1_795_000_000.25
PUBLIC = "0123456789abcdef" * 2
CALLS = (KeptCall("c1", "lookup", '{"q":1}', "[]"), KeptCall("c2", "ask", "{}"))
WHOLE = Conversation(
    ConversationKey("acme", "helper", "c-1"),
    PUBLIC,
    "email:ada@example.com",
    NOW - 100,
    (
        Message("m1", "user", "Größe?\n\u2028😀\x00", NOW - 90),
        Message("m2", "assistant", "", NOW - 80, "partial", CALLS),
    ),
    "Mein Paket",
    NOW - 80,
    2,
    1,
    "completed",
    Terms("support", {"name": "Ada"}, NOW + 5, {"a": [1, None]}),
)
LEAST = {"dialect": "widget", "id": "c-1", "messages": [{"role": "user", "text": "Hi"}]}


def defaults(tenant: str | None = "acme") -> Defaults:
    return Defaults(tenant, NOW, lambda: PUBLIC)


def read(members: object, tenant: str | None = "acme") -> Conversation:
    return from_line(orjson.dumps(members), defaults(tenant))


def problems(members: object, tenant: str | None = "acme") -> list[str]:
    with pytest.raises(BadLine) as caught:
        read(members, tenant)
    return caught.value.problems


def test_a_conversation_comes_back_from_its_line() -> None:
    line = to_line(WHOLE)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert from_line(line, defaults(None)) == WHOLE


def test_little_is_needed() -> None:
    found = read(LEAST)
    message = Message(PUBLIC, "user", "Hi", NOW)
    assert found == Conversation(
        ConversationKey("acme", "widget", "c-1"),
        PUBLIC,
        None,
        NOW,
        (message,),
        None,
        NOW,
        1,
        1,
        "open",
        NO_TERMS,
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-22T08:00:00Z", 1_795_334_400.0),
        ("2026-11-22T09:00:00.5+01:00", 1_795_334_400.5),
        (1_795_334_400, 1_795_334_400.0),
        (0.25, 0.25),
    ],
)
def test_a_time_is_text_or_a_number(text: object, seconds: float) -> None:
    assert read({**LEAST, "created_at": text}).created_at == seconds


@pytest.mark.parametrize(
    "value", ["yesterday", "2026-11-22T08:00:00", -1, 1e300, True, [], float(10**12)]
)
def test_what_is_no_time_is_refused(value: object) -> None:
    (text,) = problems({**LEAST, "created_at": value})
    assert text.startswith("created_at is not a time")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"messages": None}, "messages is missing"),
        ({"messages": {}}, "messages is not a list"),
        ({"messages": ["Hi"]}, "messages[0] is not an object"),
        ({"messages": [{"role": "user"}]}, "messages[0].text is missing"),
        ({"messages": [{"text": "x"}]}, "messages[0].role is missing"),
        ({"messages": [{"role": "bot", "text": "x"}]}, "messages[0].role is not one of"),
        ({"messages": [{"role": "user", "text": 5}]}, "messages[0].text is not text"),
        ({"messages": [{"role": "user", "text": "x", "at": 1}]}, "messages[0].at is not a member"),
        (
            {"messages": [{"role": "user", "text": "x", "calls": [{"id": "c"}]}]},
            "messages[0].calls[0].name is missing",
        ),
        ({"id": None}, "id is missing"),
        ({"id": "a/b"}, "id does not match"),
        ({"id": 5}, "id is not text"),
        ({"dialect": "smoke"}, "dialect is not one of"),
        ({"public_id": "short"}, "public_id does not match"),
        ({"owner": "email:ada@example.com"}, "owner is not known on widget"),
        ({"dialect": "helper"}, "owner is not email:"),
        ({"dialect": "helper", "owner": "ada@example.com"}, "owner is not email:"),
        ({"dialect": "helper", "owner": "anonymous:1"}, "owner is not email:"),
        ({"subject": 5}, "subject is not text"),
        ({"status": "closed"}, "status is not one of"),
        ({"read": -1}, "read is not a count"),
        ({"read": True}, "read is not a count"),
        ({"updated_at": NOW + 1}, "updated_at is in the future"),
        ({"terms": []}, "terms is not an object"),
        ({"terms": {"variables": {"a": 1}}}, "terms.variables.a is not text"),
        ({"terms": {"agents": "x"}}, "terms.agents is not a member"),
        ({"subjct": "x"}, "subjct is not a member"),
    ],
)
def test_a_bad_member_is_named(change: dict[str, object], said: str) -> None:
    (text,) = problems({**LEAST, **change})
    assert text.startswith(said)


@pytest.mark.parametrize(
    ("said", "owner"),
    [
        ("email:Ada@Example.com", "email:ada@example.com"),
        (
            "anonymous:0000000A-0000-4000-8000-000000000000",
            "anonymous:0000000a-0000-4000-8000-000000000000",
        ),
    ],
)
def test_an_owner_is_whom_a_token_names(said: str, owner: str) -> None:
    assert read({**LEAST, "dialect": "helper", "owner": said}).owner == owner


def test_all_problems_are_told_at_once() -> None:
    found = problems({"id": "c", "messages": [{"role": "bot"}, 5], "x": 1}, tenant=None)
    assert [text.split(" ")[0] for text in found] == [
        "x",
        "tenant",
        "dialect",
        "messages[1]",
        "messages[0].role",
        "messages[0].text",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "is not JSON: unexpected end of data at byte 1"),
        (b"[]", "is not a JSON object"),
        (b"5", "is not a JSON object"),
        (b"\xff{}", "is not JSON"),
        (b'{"a":1} x', "is not JSON"),
        (b'"\\ud800"', "is not JSON"),
        (b'{"terms":{"details":' + b'{"a":' * 300 + b"1" + b"}" * 302, "is nested deeper than 32"),
        (b'{"messages":[{"role":"user","text":"a","text":"b"}]}', "names a member twice"),
    ],
)
def test_what_is_no_plain_object_is_refused(line: bytes, said: str) -> None:
    with pytest.raises(BadLine, match=said):
        from_line(line, defaults())


def test_a_line_has_a_bound() -> None:
    with pytest.raises(BadLine, match="is over"):
        from_line(b" " * (LINE_BYTES + 1), defaults())
