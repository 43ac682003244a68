"""The JSON endpoints beside the chat routes, and how their clients ask them."""

import json
from dataclasses import dataclass
from typing import Final

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

    @property
    def id(self) -> str:
        """A name for test reports."""
        return f"{self.method} {self.path}"

    def request(
        self, conversation: str = "c", *, tenant: str = "acme", credential: str | None = None
    ) -> Request:
        """The request, with a good credential unless another is given."""
        name, value = credential_field(self.dialect, tenant)
        fields = [("content-type", "application/json")] if self.body is not None else []
        fields.append((name, value if credential is None else credential))
        body = b"" if self.body is None else json.dumps(self.body).encode()
        return Request(self.method, self.path.replace("{id}", conversation), tuple(fields), body)


SHOW: Final = Neighbour("helper", "GET", "/api/chat/conversation/{id}")
UPDATE: Final = Neighbour("helper", "PATCH", "/api/chat/conversation/{id}", {"markRead": True})
LIST: Final = Neighbour("helper", "GET", "/api/chat/conversations")
UNREAD: Final = Neighbour("helper", "GET", "/api/chat/conversations/unread")
START: Final = Neighbour("helper", "POST", "/api/chat/conversation", {"subject": "Shipping"})

KEYED: Final = (START, SHOW, UPDATE, LIST, UNREAD)


async def tell(
    world: World, neighbour: Neighbour, conversation: str = "c", **how: str
) -> dict[str, object]:
    """What a good answer says; `how` may name the protocol, and the tenant."""
    protocol = how.pop("protocol", "h1")
    answer = await world.send(neighbour.request(conversation, **how), protocol=protocol)
    return good(answer)


def good(answer: Answer, status: int = 200) -> dict[str, object]:
    """The body of a good answer, which nobody may keep."""
    assert answer.status == status, answer.text
    assert answer.header("cache-control") == "no-store"
    assert answer.header("content-type").startswith("application/json")
    body = answer.json()
    assert isinstance(body, dict)
    return body
