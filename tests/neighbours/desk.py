"""What the tests of the endpoints share: a store with a clock, and a way to ask."""

import json
from typing import Final

from gateway.messages import Headers, Message, Principal, Reply, RequestHead
from gateway.ports.routes import Endpoint
from gateway.stores.memory import MemoryStore

NOW: Final = 1_790_000_000.25
NOW_TEXT: Final = "2026-09-21T14:13:20.250Z"


class Desk:
    """A store whose clock stands still until `now` is moved."""

    def __init__(self) -> None:
        self.now = NOW
        self.store = MemoryStore(retention_days=90, clock=self.clock)

    def clock(self) -> float:
        """Epoch seconds."""
        return self.now


async def ask(
    endpoint: Endpoint,
    principal: Principal,
    body: object = None,
    *,
    query: str = "",
    media_type: str = "application/json",
    **params: str,
) -> Reply:
    """The endpoint's answer to one who was admitted; a body of None is no body."""
    head = RequestHead("?", "/", query, Headers((("content-type", media_type),)), params)
    sent = b"" if body is None else json.dumps(body).encode()
    return await endpoint.answer(head, sent, principal)


def told(reply: Reply, status: int = 200) -> dict[str, object]:
    """What a good answer says; nobody may keep it."""
    assert reply.status == status, reply.body
    assert dict(reply.headers)["cache-control"] == "no-store"
    body = json.loads(reply.body)
    assert isinstance(body, dict)
    return body


def said(number: int, *, at: float = NOW, text: str = "text") -> list[Message]:
    """An exchange: q1, a1."""
    return [
        Message(f"q{number}", "user", f"{text} {number}?", at),
        Message(f"a{number}", "assistant", f"{text} {number}.", at + 0.5),
    ]


def long(count: int) -> list[Message]:
    """Messages of 100,000 characters each."""
    return [Message(f"m{number}", "user", "x" * 100_000, NOW) for number in range(count)]
