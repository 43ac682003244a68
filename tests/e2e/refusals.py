"""How a refusal looks on each dialect: the vendors' error tables, and their bodies' shapes."""

from dataclasses import dataclass
from typing import Final

from tests.e2e.wire import Answer


@dataclass(frozen=True)
class Refusal:
    """How one kind of error looks on one dialect: status, and the words of its body."""

    status: int
    words: str


# Rows as in the documents' error tables; columns are the four dialects.
REFUSALS: Final[dict[str, dict[str, Refusal]]] = {
    kind: dict(zip(("hyponema", "hyperleap", "widget", "helper"), row, strict=True))
    for kind, row in {
        "bad_request": (
            Refusal(400, "bad_request"),
            Refusal(400, "bad_request"),
            Refusal(400, "Invalid request payload"),
            Refusal(400, "Invalid request"),
        ),
        "unauthorized": (
            Refusal(401, "unauthorized"),
            Refusal(401, "unauthorized"),
            Refusal(401, "Unauthorized"),
            Refusal(401, "Invalid token"),
        ),
        "forbidden": (
            Refusal(403, "forbidden"),
            Refusal(403, "forbidden"),
            Refusal(401, "Unauthorized"),
            Refusal(401, "Unauthorized"),
        ),
        "conflict": (
            Refusal(409, "conflict"),
            Refusal(409, "conflict"),
            Refusal(0, "queued instead"),
            Refusal(409, "Conversation is busy"),
        ),
        "payload_too_large": (
            Refusal(413, "payload_too_large"),
            Refusal(413, "payload_too_large"),
            Refusal(413, "Invalid request payload"),
            Refusal(413, "Message too large"),
        ),
        "rate_limited": (
            Refusal(429, "rate_limited"),
            Refusal(429, "rate_limited"),
            Refusal(429, "Too many requests"),
            Refusal(429, "Too many requests"),
        ),
        "overloaded": (
            Refusal(503, "overloaded"),
            Refusal(503, "overloaded"),
            Refusal(503, "Too many requests"),
            Refusal(503, "Service unavailable"),
        ),
        "unknown": (
            Refusal(404, "not_found"),
            Refusal(404, "not_found"),
            Refusal(0, "created instead"),
            Refusal(404, "Conversation not found"),
        ),
    }.items()
}


def check(dialect: str, kind: str, answer: Answer) -> None:
    """The answer is that refusal, whole, in the dialect's own shape."""
    wanted = REFUSALS[kind][dialect]
    assert answer.status == wanted.status, answer.text
    assert words(dialect, answer) == wanted.words
    assert answer.ended
    if answer.status in {429, 503}:
        assert int(answer.header("retry-after")) >= 1


def words(dialect: str, answer: Answer) -> str:
    """The word of an error body, after a look at its shape."""
    assert answer.header("content-type").startswith("application/json")
    assert answer.header("x-request-id")
    body = answer.json()
    assert isinstance(body, dict)
    if dialect == "hyponema":
        assert list(body) == ["detail", "error_kind"]
        assert isinstance(body["detail"], str)
        return str(body["error_kind"])
    assert list(body) == ["error"]
    if dialect == "hyperleap":
        assert list(body["error"])[:2] == ["code", "message"]
        assert set(body["error"]) <= {"code", "message", "details"}
        return str(body["error"]["code"])
    assert isinstance(body["error"], str)
    return body["error"]
