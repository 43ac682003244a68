"""Every chat route in every framing, and how a client of it asks.

A row is written from the vendors' documents: method, path, headers, body. `{id}` is the
conversation's id.
"""

import json
import uuid
from dataclasses import dataclass, replace
from typing import Final, Literal

from tests.e2e.config import key_of, token_of
from tests.e2e.wire import Request

Framing = Literal["sse", "array", "ndjson", "data-stream", "ui-message-stream", "one-shot"]


@dataclass(frozen=True)
class Chat:
    """A chat route. `framing` is `one-shot` on the routes that answer at once."""

    dialect: str
    method: str
    path: str
    framing: Framing
    accept: str | None = None

    @property
    def id(self) -> str:
        """A name for test reports."""
        asked = "" if self.accept is None else "-asked-for"
        return f"{self.dialect}{self.path.replace('/{id}', '')}:{self.framing}{asked}"

    @property
    def one_shot(self) -> bool:
        """Whether everything comes at the end."""
        return self.framing == "one-shot"

    def request(
        self, conversation: str, text: str, *, tenant: str = "acme", credential: str | None = None
    ) -> Request:
        """One message to a conversation, with a good credential unless another is given."""
        fields = [("content-type", "application/json")]
        if self.accept is not None:
            fields.append(("accept", self.accept))
        name, value = credential_field(self.dialect, tenant)
        fields.append((name, value if credential is None else credential))
        path = self.path.replace("{id}", conversation)
        return Request(self.method, path, tuple(fields), self.body(conversation, text))

    def body(self, conversation: str, text: str) -> bytes:
        """The body as this route's clients write it."""
        return json.dumps(self._document(conversation, text)).encode()

    def _document(self, conversation: str, text: str) -> dict[str, object]:
        if self.dialect == "hyponema":
            return {"text": text}
        if self.dialect == "hyperleap":
            return {"message": text}
        if self.dialect == "widget":
            return {"sessionId": conversation, "message": text}
        message: dict[str, object] = {"id": uuid.uuid4().hex, "role": "user", "content": text}
        if self.framing == "data-stream":  # what @helperai/client 0.4.5 sends
            message["parts"] = [{"type": "text", "text": text}]
            more = {"id": "chat1", "customerSpecificTools": False}
            return {"message": message, "conversationSlug": conversation, **more}
        return {"message": message, "conversationSlug": conversation}


def credential_field(dialect: str, tenant: str) -> tuple[str, str]:
    """The header that carries a good credential on a dialect's routes."""
    if dialect == "helper":
        return ("authorization", f"Bearer {token_of(tenant)}")
    if dialect == "hyponema":
        return ("authorization", f"Bearer {key_of(tenant, dialect)}")
    header = {"hyperleap": "x-hl-api-key", "widget": "x-api-key"}[dialect]
    return (header, key_of(tenant, dialect))


_HYPERLEAP_WORDS: Final[tuple[tuple[str, Framing], ...]] = (
    ("chat-http2", "array"),
    ("continue", "array"),
    ("chat", "one-shot"),
    ("continue-sync", "one-shot"),
    ("chat-sse", "sse"),
    ("continue-sse", "sse"),
)

HYPONEMA: Final = Chat("hyponema", "POST", "/sessions/{id}/messages", "sse")
HYPERLEAP: Final = Chat("hyperleap", "PATCH", "/conversations/{id}/chat-http2", "array")
WIDGET: Final = Chat("widget", "POST", "/chat", "ndjson")
HELPER: Final = Chat("helper", "POST", "/api/chat", "data-stream")
HELPER_UI: Final = Chat("helper", "POST", "/api/chat", "ui-message-stream")

MAIN: Final = (HYPONEMA, HYPERLEAP, WIDGET, HELPER)
STREAMING: Final = (*MAIN, HELPER_UI)
ALL: Final = (
    HYPONEMA,
    *(
        Chat("hyperleap", "PATCH", f"{prefix}/conversations/{{id}}/{word}", framing)
        for prefix in ("", "/api")
        for word, framing in _HYPERLEAP_WORDS
    ),
    replace(HYPERLEAP, framing="sse", accept="text/event-stream"),
    replace(HYPERLEAP, framing="ndjson", accept="application/x-ndjson"),
    WIDGET,
    replace(WIDGET, path="/v1/chat/stream"),
    Chat("widget", "POST", "/v1/chat", "one-shot"),
    HELPER,
    HELPER_UI,
    replace(HELPER_UI, accept="text/event-stream"),
)
