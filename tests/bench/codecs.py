"""Microseconds per token through each codec alone: `python -m tests.bench.codecs`.

The best of several rounds, so that a busy machine disturbs less. Targets: encode 0.6, decode 5.
"""

import platform
from collections.abc import Callable
from time import perf_counter
from typing import Final

from gateway.events import TextDelta, TurnStarted
from gateway.ports.codecs import Decoder
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.openai import OpenAI
from tests.golden import WIRES, context

_ROUNDS: Final = 7
_TOKENS: Final = 20_000
_ENCODE_TARGET_US: Final = 0.6
_DECODE_TARGET_US: Final = 5.0
_OPENAI_CHUNK: Final = (
    b'data: {"id":"chatcmpl-9f8e7d","object":"chat.completion.chunk","created":1753357673,'
    b'"model":"some-model","system_fingerprint":"fp_1","choices":[{"index":0,"delta":'
    b'{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)
_ANTHROPIC_CHUNK: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":" token"}}\n\n'
)
_ANTHROPIC_OPENING: Final = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":'
    b'{"input_tokens":1,"output_tokens":1}}}\n\nevent: content_block_start\ndata: {"type":'
    b'"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)


def best_us(work: Callable[[], None], count: int) -> float:
    """The best round's microseconds per item."""
    rounds = []
    for _ in range(_ROUNDS):
        began = perf_counter()
        work()
        rounds.append(perf_counter() - began)
    return min(rounds) / count * 1e6


def encode_us(wire_index: int) -> float:
    """One text delta through the wire's encoder."""
    wire = WIRES[wire_index]
    encoder = wire.dialect.encoder(context(wire.framing))
    encoder.encode(TurnStarted())
    event = TextDelta(" token")

    def work() -> None:
        encode = encoder.encode
        for _ in range(_TOKENS):
            encode(event)

    return best_us(work, _TOKENS)


def decode_us(decoder: Decoder, opening: bytes, chunk: bytes) -> float:
    """One chunk per read through the upstream's decoder."""
    decoder.feed(opening)

    def work() -> None:
        feed = decoder.feed
        for _ in range(_TOKENS):
            feed(chunk)

    return best_us(work, _TOKENS)


def main() -> None:
    """Prints the table."""
    print(f"Python {platform.python_version()}, {platform.machine()}; microseconds per token")
    print(f"{'codec':<34}{'measured':>10}{'target':>8}")
    for index, wire in enumerate(WIRES):
        name = f"encode {wire.name}"
        print(f"{name:<34}{encode_us(index):>10.2f}{_ENCODE_TARGET_US:>8.1f}")
    stream = "text/event-stream"
    for name, decoder, opening, chunk in (
        ("decode openai", OpenAI().decoder(stream), b"", _OPENAI_CHUNK),
        ("decode anthropic", Anthropic().decoder(stream), _ANTHROPIC_OPENING, _ANTHROPIC_CHUNK),
    ):
        print(f"{name:<34}{decode_us(decoder, opening, chunk):>10.2f}{_DECODE_TARGET_US:>8.1f}")


if __name__ == "__main__":
    main()
