"""The JSON endpoints beside the chat routes, and how their clients ask them."""

import json
from dataclasses import dataclass, replace
from typing import Final

from tests.e2e.config import admin_key_of
from tests.e2e.routes import credential_field
from tests.e2e.wire import Answer, Request
from tests.e2e.world import World


@dataclass(frozen=True)
class Neighbour:
    """An endpoint that asks for a credential, with a body that it takes; `{id}` is some
    conversation's id."""

    dialect: str
    method: str
    path: str
    body: object = None
    admin: bool = False
    status: int = 200

    @property
    def id(self) -> str:
        """A name for test reports."""
        return f"{self.method} {self.path}"

    def credential(self, tenant: str = "acme") -> tuple[str, str]:
        """The header field that lets the tenant's callers in."""
        if self.admin:
            return "x-admin-api-key", admin_key_of(tenant)
        return credential_field(self.dialect, tenant)

    def request(
        self, conversation: str = "c", *, tenant: str = "acme", credential: str | None = None
    ) -> Request:
        """The request, with a good credential unless another is given."""
        name, value = self.credential(tenant)
        fields = [("content-type", "application/json")] if self.body is not None else []
        fields.append((name, value if credential is None else credential))
        body = b"" if self.body is None else json.dumps(self.body).encode()
        return Request(self.method, self.path.replace("{id}", conversation), tuple(fields), body)


SHOW: Final = Neighbour("helper", "GET", "/api/chat/conversation/{id}")
UPDATE: Final = Neighbour("helper", "PATCH", "/api/chat/conversation/{id}", {"markRead": True})
LIST: Final = Neighbour("helper", "GET", "/api/chat/conversations")
UNREAD: Final = Neighbour("helper", "GET", "/api/chat/conversations/unread")
START: Final = Neighbour("helper", "POST", "/api/chat/conversation", {"subject": "Shipping"})

SESSION: Final = Neighbour(
    "hyponema",
    "POST",
    "/sessions",
    {"agent_id": "agent_waiter", "user_id": "user_123"},
    status=201,
)
SESSION_SHOW: Final = Neighbour("hyponema", "GET", "/sessions/{id}")
SESSION_END: Final = Neighbour("hyponema", "POST", "/sessions/{id}/end", {"status": "failed"})
GENERAL: Final = Neighbour("hyperleap", "POST", "/conversations", {"aiSystem": 0, "model": "m"})
PERSONA: Final = Neighbour(
    "hyperleap", "POST", "/conversations/persona", {"personaId": "agent_waiter"}
)
ENTRY: Final = Neighbour("hyperleap", "GET", "/conversations/{id}")
ENTRIES: Final = Neighbour("hyperleap", "GET", "/conversations")
THREADS: Final = Neighbour("widget", "GET", "/v1/admin/conversations", admin=True)
THREAD: Final = Neighbour("widget", "GET", "/v1/admin/conversations/{id}", admin=True)

HELPERS: Final = (START, SHOW, UPDATE, LIST, UNREAD)
OTHERS: Final = (
    SESSION,
    SESSION_SHOW,
    SESSION_END,
    *(
        replace(neighbour, path=f"{prefix}{neighbour.path}")
        for prefix in ("", "/api")
        for neighbour in (GENERAL, PERSONA, ENTRY, ENTRIES)
    ),
    THREADS,
    THREAD,
)
KEYED: Final = (*HELPERS, *OTHERS)


async def tell(
    world: World, neighbour: Neighbour, conversation: str = "c", **how: str
) -> dict[str, object]:
    """What a good answer says; `how` may name the protocol, and the tenant."""
    protocol = how.pop("protocol", "h1")
    answer = await world.send(neighbour.request(conversation, **how), protocol=protocol)
    return good(answer, neighbour.status)


def good(answer: Answer, status: int = 200) -> dict[str, object]:
    """The body of a good answer, which nobody may keep."""
    assert answer.status == status, answer.text
    assert answer.header("cache-control") == "no-store"
    assert answer.header("content-type").startswith("application/json")
    body = answer.json()
    assert isinstance(body, dict)
    return body
