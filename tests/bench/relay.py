"""CPU per token through the gateway, beside nginx passing the same bytes through:
`python -m tests.bench.relay`.

One stream is one turn: the upstream sends 200 events of OpenAI's shape, one every 20 ms, each in a
TCP write of its own, and 50 streams begin at once; the worst case, one token per read. Figures are
user and system time of the serving processes over the run, divided by the tokens that arrived,
turns included; a run in which a token is missing is invalid. Compare within one run only, as a
ratio. nginx is left out where it is not installed (Debian's `nginx-light`). Half a minute.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Final

import uvloop
from hpack import Encoder

from tests.bench.nginx import nginx
from tests.e2e.config import config, upstream
from tests.e2e.frames import PREFACE
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import WIDGET
from tests.e2e.wire import Address, Request

_TICK: Final = os.sysconf("SC_CLK_TCK")
_STAMP: Final = re.compile(rb"t(\d{9,}) ")
_WHOLE_TEXT: Final = re.compile(rb'"type":"done".*\n')
_FRAME: Final = Struct(">HBBBL")
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


@dataclass
class Work:
    """What one run does."""

    streams: int = 50
    tokens: int = 200
    every_s: float = 0.02


class Model(asyncio.Protocol):
    """Answers each request with a token at a time; each carries the time at which it was sent."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one by shape only

    def data_received(self, data: bytes) -> None:
        """Answers once the body is there."""
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if end and found and len(body) >= int(found[1]):
            self._seen = b""
            self._write(_HEAD)
            self._tick(0, asyncio.get_running_loop().time())

    def _tick(self, number: int, began: float) -> None:
        loop = asyncio.get_running_loop()
        if number < self._work.tokens:
            self._chunk(_event({"content": f"t{time.monotonic_ns()} "}))
            due = began + (number + 1) * self._work.every_s
            loop.call_at(due, self._tick, number + 1, began)
            return
        self._chunk(_event({}, "stop"))
        self._chunk(b"data: [DONE]\n\n")
        self._write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self._write(b"%x\r\n%s\r\n" % (len(data), data))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    document = {
        "id": "chatcmpl-9f8e7d",
        "object": "chat.completion.chunk",
        "created": 1753357673,
        "model": "some-model",
        "choices": [choice],
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


@dataclass
class Got:
    """What the clients of one run saw."""

    tokens: int = 0
    late_ns: list[int] = field(default_factory=list)
    over: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, data: bytes) -> bytes:
        """Counts the tokens in what came; the beginning of a line that is not whole is left."""
        now = time.monotonic_ns()
        end = data.rfind(b"\n") + 1
        for stamp in _STAMP.findall(_WHOLE_TEXT.sub(b"\n", data[:end])):
            self.tokens += 1
            self.late_ns.append(now - int(stamp))
        return data[end:]

    def end(self, wanted: int) -> None:
        """One more stream is over."""
        self.over += 1
        if self.over == wanted:
            self.done.set()

    def late_ms(self, share: float) -> float:
        """A quantile of the time from the model's write to the client's read."""
        self.late_ns.sort()
        return self.late_ns[int(share * (len(self.late_ns) - 1))] / 1e6


class Http1Client(asyncio.Protocol):
    """One request on a connection of its own."""

    def __init__(self, request: bytes, got: Got, work: Work) -> None:
        self._request = request
        self._got = got
        self._work = work
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks."""
        transport.write(self._request)  # type: ignore[attr-defined]  # as every TCP transport has

    def data_received(self, data: bytes) -> None:
        """Counts."""
        self._line = self._got.take(self._line + data)
        if data.endswith(b"0\r\n\r\n"):
            self._got.end(self._work.streams)


class Http2Client(asyncio.Protocol):
    """All requests on one connection."""

    def __init__(self, request: Request, got: Got, work: Work) -> None:
        self._request = request
        self._got = got
        self._work = work
        self._buffer = b""
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks everything at once, with windows that never shut."""
        settings = b"\x00\x04\x3f\xff\xff\xff"
        parts = [PREFACE, _frame(4, 0, 0, settings), _frame(8, 0, 0, b"\x3f\xff\x00\x00")]
        for number in range(1, 2 * self._work.streams, 2):
            request = _numbered(self._request, number)
            pseudo = [
                (":method", request.method),
                (":path", request.path),
                (":scheme", "http"),
                (":authority", "bench"),
            ]
            length = ("content-length", str(len(request.body)))
            fields = [(n, v, True) for n, v in (*pseudo, *request.headers, length)]
            parts += [
                _frame(1, 4, number, Encoder().encode(fields)),
                _frame(0, 1, number, request.body),
            ]
        transport.write(b"".join(parts))  # type: ignore[attr-defined]  # as every one has

    def data_received(self, data: bytes) -> None:
        """Counts; looks at frames for their ends alone."""
        self._line = self._got.take(self._line + data)
        data = self._buffer + data
        at = 0
        while len(data) - at >= 9:
            high, low, kind, flags, _ = _FRAME.unpack_from(data, at)
            end = at + 9 + (high << 8 | low)
            if end > len(data):
                break
            at = end
            if kind == 0 and flags & 1:
                self._got.end(self._work.streams)
        self._buffer = data[at:]


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, number) + payload


def _numbered(request: Request, number: int) -> Request:
    """The request, for a conversation of its own."""
    return request.carrying(WIDGET.request(f"relay-{number}", "Hello").body)


def _http1_bytes(request: Request) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers)
    head = f"{request.method} {request.path} HTTP/1.1\r\nhost: bench\r\n{fields}"
    return f"{head}content-length: {len(request.body)}\r\n\r\n".encode() + request.body


async def _ask_http1(address: Address, work: Work, got: Got) -> None:
    loop = asyncio.get_running_loop()
    for number in range(work.streams):
        data = _http1_bytes(_numbered(WIDGET.request("", ""), number))
        await loop.create_connection(lambda data=data: Http1Client(data, got, work), *address)  # type: ignore[misc]


async def _ask_http2(address: Address, work: Work, got: Got) -> None:
    loop = asyncio.get_running_loop()
    request = WIDGET.request("", "")
    await loop.create_connection(lambda: Http2Client(request, got, work), *address)


def _cpu_s(group: int) -> float:
    """User and system time of a process group."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    total += int(fields[11]) + int(fields[12])
    return total / _TICK


@dataclass
class Figure:
    """One line of the table; `cpu_us` is per token."""

    name: str
    cpu_us: float
    got: Got
    valid: bool


async def measure(name: str, group: int, address: Address, work: Work) -> Figure:
    """One run."""
    ask = _ask_http2 if name.endswith("h2c") else _ask_http1
    got = Got()
    before = _cpu_s(group)
    await ask(address, work, got)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(work.tokens * work.every_s + 5):
            await got.done.wait()
    spent = _cpu_s(group) - before
    whole = got.tokens == work.streams * work.tokens
    return Figure(name, spent / max(1, got.tokens) * 1e6, got, whole)


@asynccontextmanager
async def model_process(work: Work) -> AsyncIterator[Address]:
    """The upstream, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.relay", "--model"),
        *("--tokens", str(work.tokens), "--every-ms", str(work.every_s * 1000)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        yield Address.parse(line.decode().strip())
    finally:
        process.terminate()
        await process.wait()


async def compare(work: Work) -> list[Figure]:
    """Every run, one after another."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with model_process(work) as model, nginx(folder, model) as floor:
            settings = config({"main": upstream(f"http://{model}/v1", max_in_flight=1000)})
            gateway = await GatewayProcess(settings, folder).start()
            try:
                warm = Work(streams=5, tokens=20)
                for kind in ("gateway HTTP/1.1", "gateway h2c"):
                    await measure(kind, gateway.pid, gateway.public, warm)
                    figures.append(await measure(kind, gateway.pid, gateway.public, work))
            finally:
                await gateway.stop()
            if floor is not None:
                group, http1, http2 = floor
                figures.append(await measure("nginx HTTP/1.1", group, http1, work))
                figures.append(await measure("nginx h2c", group, http2, work))
    return figures


def show(figures: list[Figure]) -> int:
    """Prints the table; 1 if a run was invalid."""
    floors = {it.name.split()[1]: it.cpu_us for it in figures if it.name.startswith("nginx")}
    print(f"{'':18} {'us/token':>9} {'to nginx':>9} {'p50 ms':>8} {'p99 ms':>8}  tokens")
    for it in figures:
        floor = floors.get(it.name.split()[1], 0)
        ratio = f"{it.cpu_us / floor:9.1f}" if floor else f"{'-':>9}"
        late = f"{it.got.late_ms(0.5):8.2f} {it.got.late_ms(0.99):8.2f}"
        fault = "" if it.valid else "  INVALID: tokens are missing"
        print(f"{it.name:18} {it.cpu_us:9.1f} {ratio} {late}  {it.got.tokens}{fault}")
    if not floors:
        print("nginx is not installed, so there is no floor to compare with")
    return 0 if all(it.valid for it in figures) else 1


async def serve_model(work: Work) -> None:
    """Serves until it is terminated; prints its address."""
    server = await asyncio.get_running_loop().create_server(lambda: Model(work), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=Work.streams)
    parser.add_argument("--tokens", type=int, default=Work.tokens)
    parser.add_argument("--every-ms", type=float, default=Work.every_s * 1000)
    parser.add_argument("--model", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = Work(options.streams, options.tokens, options.every_ms / 1000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.model:
            runner.run(serve_model(work))
            return 0
        return show(runner.run(compare(work)))


if __name__ == "__main__":
    sys.exit(main())
