from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from gateway.certify import recordings
from gateway.certify.sockets import (
    SOCKET_WIRES,
    GatewayMaker,
    SocketPart,
    play_over_sockets,
    socket_parts,
)
from gateway.certify.sweep import Tally, silence
from gateway.settings import load_settings
from gateway.transport.asgi import Message, Receive, Send
from gateway.wiring import Built, build

RECORDINGS = {recording.name: recording for recording in recordings.shipped()}
OPENAI = RECORDINGS["openai/everything"]
ANTHROPIC = RECORDINGS["anthropic/everything"]


def sound(values: Mapping[str, object]) -> AbstractAsyncContextManager[Built]:
    return build(load_settings(None, {}, values).settings)


async def played(part: SocketPart, make: GatewayMaker = sound, cuts: int = 12) -> Tally:
    end = len(part.recording.data)
    with silence():
        return await play_over_sockets(part, make, [end * n // (cuts - 1) for n in range(cuts)])


@pytest.mark.parametrize("hush", [False, True], ids=["closed", "silent"])
@pytest.mark.parametrize("recording", [OPENAI, ANTHROPIC], ids=lambda it: it.name)
@pytest.mark.parametrize("dialect", SOCKET_WIRES)
async def test_cut_off_and_silent_models_pass(
    dialect: str, recording: recordings.Recording, hush: bool
) -> None:
    tally = await played(SocketPart(recording, dialect, hush, 0, len(recording.data) + 1))
    assert (tally.failed, tally.reason, tally.cases) == (0, "", 12)


def test_the_parts_of_a_recording_are_every_cut_and_every_silence() -> None:
    parts = socket_parts(OPENAI, "widget")
    for hush in (False, True):
        cuts = [cut for part in parts if part.hush is hush for cut in range(part.begin, part.end)]
        assert cuts == list(range(len(OPENAI.data) + 1))


# Planted faults


@dataclass(frozen=True)
class Lossy:
    """Leaves out what the fault names, of answers that stream."""

    app: object
    fault: str

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)  # type: ignore[operator]  # an ASGI application
            return
        streams = False

        async def lossy(message: Message) -> None:
            nonlocal streams
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                streams = b"content-length" not in names
            elif streams and self.fault == "the body's end" and not message["more_body"]:
                raise ConnectionError("planted")
            elif streams and self.fault == "the terminal record" and b"error" in message["body"]:
                return
            await send(message)

        await self.app(scope, receive, lossy)  # type: ignore[operator]  # an ASGI application


def faulty(fault: str) -> GatewayMaker:
    @asynccontextmanager
    async def make(values: Mapping[str, object]) -> AsyncIterator[Built]:
        async with sound(values) as built:
            yield replace(built, app=Lossy(built.app, fault))  # type: ignore[arg-type]  # a stand-in

    return make


async def test_a_missing_terminal_record_is_found() -> None:
    part = SocketPart(OPENAI, "widget", False, 0, len(OPENAI.data) + 1)
    tally = await played(part, faulty("the terminal record"))
    assert (bool(tally.failed), tally.reason) == (True, "0 terminal records")


async def test_a_body_that_does_not_end_properly_is_found() -> None:
    part = SocketPart(OPENAI, "hyponema", False, 0, len(OPENAI.data) + 1)
    tally = await played(part, faulty("the body's end"))
    assert tally.failed
    assert tally.reason == "the body ended without its last chunk"
