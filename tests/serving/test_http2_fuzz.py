import asyncio
import logging
import random
from collections.abc import AsyncIterator

import pytest
import structlog
from hyperframe.frame import HeadersFrame

from tests.e2e.frames import Frames
from tests.serving.rig import Service, service

PATHS: list[str | bytes] = [
    "/",
    "/echo",
    "/until-gone",
    "/records",
    "/short",
    "/hold",
    b"/\xff",
    "x",
]
FLAGS = [0, 0, 0, 1, 4, 5, 8, 0x20, 0xFF]
# By kind of frame: DATA HEADERS PRIORITY RST_STREAM SETTINGS PUSH_PROMISE PING GOAWAY
# WINDOW_UPDATE CONTINUATION and one that nobody knows.
ODDS = [8, 0.2, 2, 4, 1, 0.1, 1, 0.1, 6, 0.2, 1]
SIZES = [range(40), range(20), [5], [4, 4, 3], [0, 6, 12], [8], [8], [8], [4], range(9), range(9)]
SEEDS = range(60)


@pytest.fixture
async def it() -> AsyncIterator[Service]:
    async with service() as running:
        running.records = [b"x" * 20_000, b"y"]
        yield running


class Chaos:
    """Frames that are sometimes right."""

    def __init__(self, seed: int, client: Frames) -> None:
        self.random = random.Random(seed)
        self.client = client
        self.next = 1

    def stream(self) -> int:
        if self.random.random() < 0.4:
            self.next += 2
            return self.next - 2
        return self.random.randrange(self.next + 3)

    def frame(self) -> bytes:
        number, rand = self.stream(), self.random
        if rand.random() < 0.5 and number:
            path = rand.choice(PATHS)
            return self.client.request(number, path, end=rand.random() < 0.5).serialize()
        kind = rand.choices(range(11), ODDS)[0]
        payload = rand.randbytes(rand.choice(SIZES[kind]))
        if kind == 8:
            payload = rand.randrange(1, 1 << 16).to_bytes(4, "big")
        if kind in (4, 6, 7) and rand.random() < 0.9:
            number = 0
        flags = rand.choice(FLAGS)
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big")
        return head + payload


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_frames_harm_nobody_and_leave_nothing(
    it: Service, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with await it.client() as good:
        good.write(good.request(1, "/wait"))
        await good.status(1)
        with structlog.testing.capture_logs() as logs:
            async with await it.client() as client:
                chaos = Chaos(seed, client)
                for _ in range(40):
                    client.write(b"".join(chaos.frame() for _ in range(chaos.random.randrange(8))))
                    await asyncio.sleep(0)
            await it.until(lambda: not it.running["/until-gone"])
        it.go.set()
        assert (await good.body(1))[-1] == b"done"
    assert [entry for entry in logs if entry["log_level"] != "debug"] == []
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("seed", range(20))
async def test_random_bytes_harm_nobody(
    it: Service, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with await it.client() as client:
        client.write(random.Random(seed).randbytes(3000))
        await client.end()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("seed", range(10))
async def test_good_requests_cut_anywhere_are_served(it: Service, seed: int) -> None:
    rand = random.Random(seed)
    async with await it.client() as client:
        frames: list[bytes] = []
        for number in range(1, 41, 2):
            frames.append(client.request(number, "/echo", method="POST", end=False).serialize())
            frames.append(client.data(number, b"%d" % number * 100, end=True).serialize())
        data = b"".join(frames)
        while data:
            size = rand.randrange(1, 400)
            client.write(data[:size])
            data = data[size:]
            await asyncio.sleep(0)
        answered: set[int] = set()
        while len(answered) < 20:
            frame = await client.expect(HeadersFrame)
            answered.add(frame.stream_id)
    assert sorted(it.bodies) == sorted(b"%d" % number * 100 for number in range(1, 41, 2))
