"""Recorded answers of model servers: the ones shipped here, and a user's own files.

A recording is the body of one answer as it came: server-sent events, or one JSON document. Which
wire it speaks is found in its content.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from gateway.readers.eventstream import EventStream

Protocol = Literal["openai", "anthropic"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)
FOLDER: Final = Path(__file__).parent / "streams"

_EVENTS: Final = "text/event-stream"
_DOCUMENT: Final = "application/json"
_SUFFIXES: Final = {".sse": _EVENTS, ".json": _DOCUMENT}
# Decoding every cut takes time with the square of the length: of this much, ten minutes.
_MAX_BYTES: Final = 256 * 1024


class Unreadable(Exception):
    """A file is no recording that can be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded answer."""

    name: str
    protocol: Protocol
    content_type: str
    data: bytes

    @property
    def is_document(self) -> bool:
        """Whether it is one JSON document and no stream."""
        return self.content_type == _DOCUMENT


def shipped() -> list[Recording]:
    """The recordings that come with the gateway, by wire and name."""
    return [
        Recording(f"{protocol}/{path.stem}", protocol, _SUFFIXES[path.suffix], path.read_bytes())
        for protocol in PROTOCOLS
        for path in sorted((FOLDER / protocol).iterdir())
        if path.suffix in _SUFFIXES
    ]


def read(path: Path, protocol: Protocol | None = None) -> Recording:
    """A user's recording; its wire is guessed unless given. Raises `Unreadable`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror or error}") from None
    if len(data) > _MAX_BYTES:
        raise Unreadable(
            f"{path}: has {len(data):,} bytes, more than {_MAX_BYTES:,}; record a shorter answer"
        )
    if data.startswith(b"HTTP/"):
        raise Unreadable(
            f"{path}: begins with an HTTP head; record the body alone, e.g. `curl -sN` without -i"
        )
    is_document = data.lstrip().startswith((b"{", b"["))
    spoken = protocol or _spoken(data, is_document=is_document)
    if spoken is None:
        raise Unreadable(
            f"{path}: is no answer of a model server that can be told by its content; "
            f"give --protocol {' or '.join(PROTOCOLS)} if it is one"
        )
    return Recording(str(path), spoken, _DOCUMENT if is_document else _EVENTS, data)


def _spoken(data: bytes, *, is_document: bool) -> Protocol | None:
    for payload in _payloads(data, is_document=is_document):
        kind = payload.get("type")
        if "choices" in payload or payload.get("object") == "chat.completion.chunk":
            return "openai"
        if isinstance(kind, str) and kind.startswith(("message", "content_block", "ping")):
            return "anthropic"
        if "error" in payload:
            return "anthropic" if kind == "error" else "openai"
    return None


def _payloads(data: bytes, *, is_document: bool) -> Iterator[dict[str, object]]:
    texts = [data.decode("utf-8", "replace")]
    if not is_document:
        stream = data.removeprefix(b"\xef\xbb\xbf") + b"\n\n"
        texts = [text for _, text in EventStream().feed(stream)]
    for text in texts:
        try:
            payload = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(payload, dict):
            yield payload
