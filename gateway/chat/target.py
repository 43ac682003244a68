"""Where to talk to, in which dialect, and how a message is asked there.

Sources: the vendors' documents, and for helper's conversation its API reference.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from gateway.access.keys import PREFIXES
from gateway.chat import readers
from gateway.messages import DialectName

_DEFAULT_URL: Final = "http://127.0.0.1:8080"
_DEFAULT_DIALECT: Final = "widget"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
# A token is a JWT, which begins with a JSON object in base64.
_BEGINNINGS: Final[Mapping[DialectName, str]] = {**PREFIXES, "helper": "eyJ"}


class UsageError(Exception):
    """What was asked for cannot work; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of HTTP/1.1; `path` begins with a slash."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway and a client's way to talk to it; `url` has no path."""

    url: str
    dialect: str
    key: str = field(repr=False)

    def opening(self) -> Request | None:
        """What has to be asked before the first message, whose answer names the conversation."""
        if self.dialect != "helper":
            return None
        return self._request("POST", "/api/chat/conversation", {})

    def message(self, conversation: str, text: str) -> Request:
        """A message to the conversation."""
        name = quote(conversation, safe="")
        if self.dialect == "hyponema":
            return self._request("POST", f"/sessions/{name}/messages", {"text": text})
        if self.dialect == "hyperleap":
            path = f"/conversations/{name}/chat-http2"
            return self._request("PATCH", path, {"message": text})
        if self.dialect == "widget":
            body = {"sessionId": conversation, "message": text}
            return self._request("POST", "/v1/chat/stream", body)
        message = {"role": "user", "content": text}
        post = {"message": message, "conversationSlug": conversation}
        return self._request("POST", "/api/chat", post)

    def reader(self, content_type: str) -> readers.Reader:
        """A reader for the answer to a message."""
        return readers.reader(self.dialect, content_type)

    def _request(self, method: str, path: str, body: object) -> Request:
        credential = {
            "hyponema": ("authorization", f"Bearer {self.key}"),
            "hyperleap": ("x-hl-api-key", self.key),
            "widget": ("x-api-key", self.key),
            "helper": ("authorization", f"Bearer {self.key}"),
        }[self.dialect]
        headers = dict([credential, ("content-type", "application/json")])
        return Request(method, path, headers, json.dumps(body).encode())


def new_conversation() -> str:
    """An id for a conversation of a dialect whose clients choose it."""
    return str(uuid.uuid4())


def choose(demo_file: Path, *, dialect: str | None, url: str | None, key: str | None) -> Target:
    """The target that the options and the demo's file make together.

    The demo's keys go to the demo's address, or to another on this machine; nowhere else. Raises
    `UsageError`.
    """
    demo = _read(demo_file)
    chosen = dialect or _dialect_of(key) or _DEFAULT_DIALECT
    address = _checked(url or demo.get("url") or _DEFAULT_URL)
    if key is None:
        near = url is None or urlsplit(address).hostname in _LOOPBACK
        key = demo.get(chosen) if near else None
    if not key:
        made = "gateway token --tenant T" if chosen == "helper" else "gateway keys new"
        raise UsageError(
            f"no key for {chosen}: give --key (`{made}` makes one), "
            f"or start a demo with `make run` and run this in the same directory"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("--key is not a key: it has characters that no header may carry")
    return Target(address, chosen, key)


def _read(file: Path) -> Mapping[str, str]:
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _dialect_of(key: str | None) -> str | None:
    found = (name for name, begins in _BEGINNINGS.items() if key and key.startswith(begins))
    return next(found, None)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.path.strip("/") or parts.query:
        raise UsageError(f"--url {url!r} is not the address of a gateway, e.g. {_DEFAULT_URL}")
    return f"{parts.scheme}://{parts.netloc}"
