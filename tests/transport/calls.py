"""Calls of one model server for the tests of the client, and what they should bring."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from gateway.errors import (
    GatewayError,
)
from gateway.events import ModelEvent, ModelFinished, TextDelta
from gateway.messages import Prompt, PromptMessage, Usage
from gateway.ports.codecs import Upstream
from gateway.ports.turns import ModelStream
from gateway.transport.client import STREAM_BYTES, HttpServer
from gateway.upstreams.openai import OpenAI
from tests.model_streams import openai_stream
from tests.upstream import Seen, stream

PROMPT = Prompt("some-model", "", (PromptMessage("user", "hi"),))
EVENTS = openai_stream(["Hel", "lo"])
GOOD = stream(*EVENTS)
WANTED: list[ModelEvent] = [
    TextDelta("Hel"),
    TextDelta("lo"),
    ModelFinished("stop", Usage(12, 3)),
]
CANARY = "sk-canary-1234567890"
BOUND = 10.0

Make = Callable[..., HttpServer]
SELF_SIGNED = Path(__file__).parent / "self_signed.pem"


def model_of(
    session: aiohttp.ClientSession,
    base_url: str,
    *,
    codec: Upstream | None = None,
    connect_s: float = 5.0,
    one_connection_per_request: bool = False,
    stream_bytes: int = STREAM_BYTES,
    grace_s: float = 2.0,
    tls: ssl.SSLContext | None = None,
) -> HttpServer:
    return HttpServer(
        codec=codec or OpenAI(api_key=CANARY),
        session=session,
        base_url=base_url,
        connect_s=connect_s,
        one_connection_per_request=one_connection_per_request,
        stream_bytes=stream_bytes,
        grace_s=grace_s,
        tls=tls,
    )


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


async def drain(running: ModelStream) -> list[ModelEvent]:
    events: list[ModelEvent] = []
    try:
        while not events or not isinstance(events[-1], ModelFinished):
            events += await running.read()
    finally:
        await running.close()
    return events


async def ask(model: HttpServer) -> list[ModelEvent]:
    async with asyncio.timeout(BOUND):
        return await drain(await model.call(PROMPT))


async def failure(model: HttpServer) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await ask(model)
    assert CANARY not in repr(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value


async def left(seen: Seen) -> None:
    async with asyncio.timeout(BOUND):
        await seen.gone.wait()
