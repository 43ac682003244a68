"""Faults planted on purpose: encoders and decoders that do one thing wrong."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.certify.wires import WIRES, Wire
from gateway.errors import GatewayError, Truncated
from gateway.events import ModelEvent, TurnEvent, TurnFinished
from gateway.messages import ChatRequest, DialectOptions, Reply, RequestHead, TurnContext
from gateway.ports.codecs import Decoder, Dialect, Encoder
from gateway.upstreams.openai import OpenAI

Fault = Callable[[Encoder, TurnEvent], Sequence[bytes]]


def wire(name: str) -> Wire:
    """The wire with that name."""
    return next(wire for wire in WIRES if wire.name == name)


def with_fault(name: str, fault: Fault) -> Wire:
    """The wire with that name, whose encoder encodes as `fault` says."""
    sound = wire(name)
    return replace(sound, dialect=_FaultyDialect(sound.dialect, fault))


class _FaultyDialect:
    def __init__(self, sound: Dialect, fault: Fault) -> None:
        self._sound = sound
        self._fault = fault
        self.name = sound.name
        self.routes = sound.routes
        self.credentials = sound.credentials
        self.conflict = sound.conflict

    def decode_request(
        self, head: RequestHead, body: bytes, options: DialectOptions
    ) -> ChatRequest:
        return self._sound.decode_request(head, body, options)

    def encoder(self, turn: TurnContext) -> Encoder:
        return _FaultyEncoder(self._sound.encoder(turn), self._fault)

    def encode_error(self, error: GatewayError) -> Reply:
        return self._sound.encode_error(error)


class _FaultyEncoder:
    def __init__(self, sound: Encoder, fault: Fault) -> None:
        self._sound = sound
        self._fault = fault
        self.apart = sound.apart
        self.ends_alone = sound.ends_alone
        self.one_shot = sound.one_shot

    def head(self) -> Reply:
        return self._sound.head()

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        return self._fault(self._sound, event)

    def keep_alive(self) -> Sequence[bytes]:
        return self._sound.keep_alive()

    def shown(self, event: TurnFinished) -> str:
        return self._sound.shown(event)


class FaultyDecoder:
    """The chat-completions decoder; subclasses do one thing otherwise."""

    def __init__(self, content_type: str) -> None:
        self.sound: Decoder = OpenAI().decoder(content_type)

    @property
    def finishing(self) -> bool:
        return self.sound.finishing

    def feed(self, chunk: bytes) -> list[ModelEvent]:
        return self.changed(self.sound.feed(chunk))

    def close(self) -> list[ModelEvent]:
        try:
            return self.changed(self.sound.close())
        except Truncated as error:
            return self.cut(error)

    def changed(self, events: list[ModelEvent]) -> list[ModelEvent]:
        return events

    def cut(self, error: Truncated) -> list[ModelEvent]:
        raise error
