"""A scripted model server: plays bytes, pauses and faults over HTTP/1.1, and notes what it saw.

Wire: one connection after another or reused; a request is answered by the next script given to
`play` (the last one repeats), or by what a function returns for the request. Nothing is checked
and nothing is repaired: a script may be any lie. Also a program: `python -m tests.upstream` serves
one of `SCRIPTS` and prints its base URL.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

import orjson

from tests.model_streams import anthropic_stream, openai_stream

Framing = Literal["chunked", "close", "length", "raw"]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Waits; the answer goes on afterwards, unless the client has left."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits until the test sets the event."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Unframed:
    """Bytes that go out as they are, whatever the framing."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Fin:
    """Closes the connection in order, without ending the answer."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Resets the connection."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Waits until the client has closed the connection."""


Step = bytes | Sleep | Wait | Unframed | Fin | Reset | Hang


@dataclass(frozen=True, slots=True)
class Script:
    """One answer. With framing `raw` there is no head: the steps are all there is.

    A bytes step is one write and, with `chunked`, one chunk; `length` sends the sum of the bytes
    steps as Content-Length unless `declared` says another number. `keep` leaves the connection
    open after an answer that was ended in order.
    """

    steps: Sequence[Step] = ()
    status: int = 200
    headers: Sequence[tuple[str, str]] = (("content-type", "text/event-stream"),)
    framing: Framing = "chunked"
    declared: int | None = None
    keep: bool = True


@dataclass(slots=True)
class Seen:
    """One request. `gone` is set once the client has closed or reset the connection, and
    `gone_at` is the loop's time of that moment; `connection` counts from 0."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    at: float
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    gone_at: float | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        """The field's first value."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> dict[str, object]:
        """The body's JSON object."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


Play = Script | Callable[[Seen], Script]


class ScriptedUpstream:
    """The server; an async context manager. `url` is its base URL, without a version.

    With `tls` it speaks TLS.
    """

    def __init__(self, *scripts: Play, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Seen] = []
        self.connections = 0
        self.open_connections = 0
        self.arrived = asyncio.Condition()
        self.port = 0
        self._scripts: list[Play] = list(scripts)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def play(self, *scripts: Play) -> None:
        """Replaces the scripts that are still to be played."""
        self._scripts = list(scripts)

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and closes every connection."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def request(self, number: int = 0) -> Seen:
        """The request with that number, once it has come."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) > number)
        return self.requests[number]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _next(self, seen: Seen) -> Script:
        play = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        return play if isinstance(play, Script) else play(seen)

    async def _note(self, seen: Seen) -> None:
        async with self.arrived:
            self.requests.append(seen)
            self.arrived.notify_all()


class _Connection(asyncio.StreamReaderProtocol):
    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._loop_ = asyncio.get_running_loop()
        self._input = asyncio.StreamReader(limit=16 * 1024 * 1024)
        super().__init__(self._input)
        self._upstream = upstream
        self._number = upstream.connections
        self._current: Seen | None = None
        self._gone = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        upstream.connections += 1
        upstream.open_connections += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        self._out = transport
        self._task = self._loop_.create_task(self._serve())
        self._upstream._tasks.add(self._task)
        self._task.add_done_callback(self._upstream._tasks.discard)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> bool | None:
        self._client_left()
        return super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._upstream.open_connections -= 1
        self._client_left()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        super().connection_lost(None)

    def _client_left(self) -> None:
        self._gone.set()
        if self._current is not None and not self._current.gone.is_set():
            self._current.gone_at = self._loop_.time()
            self._current.gone.set()

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            self._out.abort()
            raise
        finally:
            self._out.close()

    async def _exchange(self) -> bool:
        head = (await self._input.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        fields = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
        length = next((int(value) for name, value in fields if name == "content-length"), 0)
        body = await self._input.readexactly(length)
        method, path, _ = first.split(" ")
        seen = Seen(method, path, fields, body, self._number, self._loop_.time())
        self._current = seen
        if self._gone.is_set():
            self._client_left()
        await self._upstream._note(seen)
        script = self._upstream._next(seen)
        keep = await self._play(script, seen)
        seen.finished.set()
        if keep:
            self._current = None
        return keep

    async def _play(self, script: Script, seen: Seen) -> bool:
        framing = script.framing
        if framing != "raw":
            await self._write(_head(script))
        for step in script.steps:
            if isinstance(step, bytes):
                await self._write(
                    b"%x\r\n%b\r\n" % (len(step), step) if framing == "chunked" else step
                )
            elif isinstance(step, Unframed):
                await self._write(step.data)
            elif isinstance(step, Fin):
                return False
            elif isinstance(step, Reset):
                self._reset()
                return False
            else:
                await self._pause(step)
        if framing == "chunked":
            await self._write(b"0\r\n\r\n")
        return script.keep and framing in ("chunked", "length")

    async def _write(self, data: bytes) -> None:
        self._out.write(data)
        # Lets the bytes leave as a segment of their own.
        await asyncio.sleep(0)
        await self._writable.wait()

    async def _pause(self, step: Sleep | Wait | Hang) -> None:
        if isinstance(step, Hang):
            await self._gone.wait()
            return
        waiting = asyncio.ensure_future(
            asyncio.sleep(step.seconds) if isinstance(step, Sleep) else step.event.wait()
        )
        leaving = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            leaving.cancel()

    def _reset(self) -> None:
        own = self._out.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._out.abort()


def _head(script: Script) -> bytes:
    lines = [f"HTTP/1.1 {script.status} Scripted"]
    lines += [f"{name}: {value}" for name, value in script.headers]
    if script.framing == "chunked":
        lines.append("transfer-encoding: chunked")
    elif script.framing == "length":
        total = sum(len(step) for step in script.steps if isinstance(step, bytes))
        lines.append(f"content-length: {total if script.declared is None else script.declared}")
    else:
        lines.append("connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def stream(*steps: Step, framing: Framing = "chunked", keep: bool = True) -> Script:
    """A `text/event-stream` answer of status 200."""
    return Script(steps, framing=framing, keep=keep)


def answer(
    status: int, body: object, *, headers: Iterable[tuple[str, str]] = (), media: str = ""
) -> Script:
    """A whole answer; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    fields = (("content-type", media or "application/json"), *headers)
    return Script((data,), status=status, headers=fields, framing="length")


SCRIPTS: dict[str, Script] = {
    "hello": stream(*openai_stream(["Hel", "lo"])),
    "anthropic": stream(*anthropic_stream(["Hel", "lo"])),
    "slow": stream(
        *(step for event in openai_stream(["word "] * 200) for step in (event, Sleep(0.02)))
    ),
    "error": answer(500, {"error": {"message": "out of order", "type": "server_error"}}),
}


async def _serve_for_ever(name: str, port: int) -> None:
    upstream = ScriptedUpstream(SCRIPTS[name])
    await upstream.start(port)
    print(upstream.url, flush=True)
    await asyncio.Event().wait()


def _main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.upstream")
    arguments.add_argument("--script", choices=sorted(SCRIPTS), default="hello")
    arguments.add_argument("--port", type=int, default=0)
    chosen = arguments.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_for_ever(chosen.script, chosen.port))


if __name__ == "__main__":
    _main()
