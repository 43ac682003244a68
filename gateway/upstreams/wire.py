"""What the wires share: the body of a call, and the two forms of an answer.

A wire gives a `Reading`: the state of one answer, which turns one JSON value after another into
model events. `StreamDecoder` feeds it from server-sent events, `WholeDecoder` from a body that is
one JSON document. Both are `ports.Decoder`s. No body is kept beyond 4 MiB.
"""

import json
from collections.abc import Mapping
from typing import Final, Protocol

import orjson

from gateway.errors import GatewayError, Truncated, UpstreamProtocolError
from gateway.events import ModelEvent
from gateway.framing.sse import SseReader
from gateway.ports.codecs import Decoder
from gateway.upstreams.faults import identifier

MAX_BODY: Final = 4 * 1024 * 1024


class Reading(Protocol):
    """The state of one answer. `finishing` says that `end` would not raise."""

    @property
    def finishing(self) -> bool:
        """Whether all that matters has come, bar the end mark."""
        ...

    def event(self, name: str, data: bytes, events: list[ModelEvent]) -> bool:
        """Reads one server-sent event; True if it was the end mark and `ModelFinished` is given.

        Raises `GatewayError` subclasses.
        """
        ...

    def whole(self, payload: dict[str, object], events: list[ModelEvent]) -> None:
        """Reads a whole answer up to `ModelFinished`. Raises `GatewayError` subclasses."""
        ...

    def end(self, events: list[ModelEvent]) -> None:
        """The stream ended by itself. Raises `Truncated` if something was still to come."""
        ...


def encode_body(body: Mapping[str, object], extra: Mapping[str, object]) -> bytes:
    """The JSON of a call; a member of `extra` replaces the body's own, null removes it."""
    merged = {**body, **extra}
    members = {name: value for name, value in merged.items() if value is not None}
    return orjson.dumps(members, default=_as_dict)


def decoder_for(content_type: str, reading: Reading) -> Decoder:
    """The decoder for an answer of this type; one without a type is taken for a stream.

    Raises `UpstreamProtocolError` for a type that no model's answer has.
    """
    essence = content_type.partition(";")[0].strip().lower()
    if essence in ("text/event-stream", ""):
        return StreamDecoder(reading)
    if essence == "application/json" or essence.endswith("+json"):
        return WholeDecoder(reading)
    named = identifier(essence.replace("/", ".")) or "something else"
    raise UpstreamProtocolError(f"the answer is {named}, neither an event stream nor JSON")


class StreamDecoder:
    """The decoder of a `text/event-stream` answer.

    An error found behind events of the same read is raised by the next call, `feed(b"")` included.
    """

    __slots__ = ("_failure", "_over", "_reading", "_sse")

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._over = False
        self._sse = SseReader()
        self._failure: GatewayError | None = None

    @property
    def finishing(self) -> bool:
        """Whether only the end mark, and perhaps usage, is to come."""
        return self._reading.finishing

    def feed(self, chunk: bytes) -> list[ModelEvent]:
        """The events that `chunk` completes; none after `ModelFinished`."""
        self._raise_failure()
        events: list[ModelEvent] = []
        if self._over or not chunk:
            return events
        read = self._reading.event
        try:
            for name, data in self._sse.feed(chunk):
                if read(name, data, events):
                    self._over = True
                    return events
        except GatewayError as error:
            self._failure = error
        else:
            self._failure = self._sse.failure
        if not events:
            self._raise_failure()
        return events

    def close(self) -> list[ModelEvent]:
        """The events that the end of the stream completes; raises `Truncated` if cut short."""
        self._raise_failure()
        events: list[ModelEvent] = []
        if self._over:
            return events
        self._over = True
        try:
            for name, data in self._sse.close():
                if self._last_event(name, data, events):
                    return events
            self._reading.end(events)
        except GatewayError as error:
            self._failure = error
        if not events:
            self._raise_failure()
        return events

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _last_event(self, name: str, data: bytes, events: list[ModelEvent]) -> bool:
        try:
            return self._reading.event(name, data, events)
        except UpstreamProtocolError:
            # No blank line and no sense: the stream was cut inside this event, and whether that
            # is a loss is for `end` to say.
            return False


class WholeDecoder:
    """The decoder of an `application/json` answer: nothing until the end, then everything."""

    __slots__ = ("_body", "_closed", "_reading")

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._body = bytearray()
        self._closed = False

    @property
    def finishing(self) -> bool:
        """Never: a document is whole or it is not."""
        return False

    def feed(self, chunk: bytes) -> list[ModelEvent]:
        """Keeps the bytes. Raises `UpstreamProtocolError` over 4 MiB."""
        if len(self._body) + len(chunk) > MAX_BODY:
            raise UpstreamProtocolError(f"the answer has more than {MAX_BODY} bytes")
        self._body += chunk
        return []

    def close(self) -> list[ModelEvent]:
        """The events of the answer. Raises `Truncated` for a document that is cut short."""
        events: list[ModelEvent] = []
        if self._closed:
            return events
        try:
            payload, _ = parse(bytes(self._body), 1)
        except UpstreamProtocolError as error:
            raise Truncated("the answer is no whole JSON document") from error
        self._closed = True
        self._reading.whole(payload, events)
        return events


def parse(data: bytes, ordinal: int) -> tuple[dict[str, object], bool]:
    """A JSON object, and whether it needed the tolerant reader.

    orjson refuses lone surrogates and bytes that are not UTF-8, which servers do send: `json`
    reads them, and its text may then hold surrogates. `ordinal` counts events, for the message of
    the `UpstreamProtocolError` that anything else but an object gets.
    """
    tolerant = False
    try:
        payload: object = orjson.loads(data)
    except orjson.JSONDecodeError as refusal:
        tolerant = True
        try:
            payload = json.loads(data.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            # Not chained: the parser's error holds the model's text.
            where = f"event {ordinal} at byte {refusal.pos}"
            raise UpstreamProtocolError(f"bad JSON in {where}") from None
    if not isinstance(payload, dict):
        raise UpstreamProtocolError(f"event {ordinal} is not a JSON object")
    return payload, tolerant


def compact(value: object) -> str:
    """The JSON text of a value that `parse` gave."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # A surrogate, or nesting that only orjson's reader allows.
        try:
            return json.dumps(value, separators=(",", ":"))
        except RecursionError:
            raise UpstreamProtocolError("a value is nested too deeply") from None


def _as_dict(value: object) -> dict[object, object]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
