"""The guarded request: one HTTP exchange over ASGI that cannot hang, leak or end twice.

One pump is the only reader of `receive()` and reads until `http.disconnect`, which is the only sign
of a client that has gone: `send()` raises for none. The request is served in a child task, which a
disconnect cancels. What comes of a body after its answer is for the server to drop.

Nothing but cancellation leaves `run`: a fault before the answer is answered with 500, a fault in
it leaves it without an end, which the server shows the client as one that was cut short. A server
that can neither receive nor send any more is a client that has gone.

Bounds: body `body_bytes` and `body_s`, and from half of `body_s` on 1000 bytes a second on
average.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import structlog

from gateway.errors import Cancelled, HttpError, PayloadTooLarge
from gateway.messages import Headers, Reply, RequestHead

# ASGI's own message shape; values have a type per key that Python cannot say without a
# TypedDict per message, and every server sends plain dicts.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fields = tuple[tuple[str, str], ...]

_log: Final = structlog.get_logger("gateway.transport")
_LAST_WORDS_S: Final = 4.0
_FAREWELL_S: Final = 2.0
_SLOWEST_BYTES_A_SECOND: Final = 1000
_LOOK_S: Final = 0.25
_CONTINUE: Final = "http.request.continue"  # this gateway's own extension of ASGI
# More digits than any length has; Python refuses to read thousands of them.
_LENGTH_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """Bounds of one request: bytes of its body, and seconds from its head to its last byte."""

    body_bytes: int
    body_s: float


class Exchange:
    """One request and its answer.

    `stamp` gives the header fields that every answer carries. `gone` turns true when the client
    closed the connection or reset the stream; what is written after that goes nowhere.
    `received_at` is the loop's time at the request's last byte; `sent_bytes` counts body bytes
    handed to the server.
    """

    def __init__(
        self, scope: Message, receive: Receive, send: Send, limits: ExchangeLimits
    ) -> None:
        self.head = request_head(scope)
        self.client: str | None = scope["client"][0] if scope.get("client") else None
        self.gone = False
        self.answered = False
        self.cancel_when_gone = True
        self.received_at = 0.0
        self.status = 0
        self.sent_bytes = 0
        self.stamp: Callable[[], Fields] = tuple
        self._receive = receive
        self._send = send
        self._limits = limits
        self._body = bytearray()
        self._keep_body = True
        # A client that waits for leave sends nothing before it has it (RFC 9110 section 10.1.1).
        self._invited = _CONTINUE not in scope.get("extensions", {})
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[object] | None = None
        self._interrupted = False
        self._ending = False
        self._farewell: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    async def run(self, serve: Callable[["Exchange"], Awaitable[None]]) -> None:
        """Serves the request in a child task; returns when it is over and the answer has ended.

        `serve` should not raise but `CancelledError`, when the client has gone.
        """
        self._task = self._loop.create_task(self._guarded(serve))
        pump = self._loop.create_task(self._pump())
        try:
            await self._task
        except asyncio.CancelledError:
            # A cancelled child is a gone client; a cancellation of this task must go on.
            if not self.gone:
                raise
        finally:
            if self._farewell is not None:
                self._farewell.cancel()
            pump.cancel()
            await asyncio.wait([pump])

    async def _guarded(self, serve: Callable[["Exchange"], Awaitable[None]]) -> None:
        try:
            await serve(self)
        except Exception:  # noqa: BLE001 - whatever it was, nothing may leave the application
            _log.exception("exchange_fault")
            if not self.answered:
                await self._last_words()

    async def _last_words(self) -> None:
        self.stamp = tuple  # it may be what was at fault
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.reply(Reply(500, (), b""))
        except TimeoutError:
            _log.warning("client_stalled")

    async def body(self) -> bytes:
        """The whole request body.

        Raises `PayloadTooLarge`, `HttpError` 408 and `Cancelled` (the client went away first).
        """
        if (self.declared_bytes or 0) > self._limits.body_bytes:
            raise PayloadTooLarge("declared length is over the cap")
        if not self._invited:
            self._invited = True
            await self._put({"type": _CONTINUE})
        while not self._arrived.is_set():
            await self._look()
        if not self._keep_body:
            raise PayloadTooLarge("the body is over the cap")
        if self.gone:
            raise Cancelled("the client went away before its body ended")
        return bytes(self._body)

    @property
    def declared_bytes(self) -> int | None:
        """The body's length as declared; None where none is, or none that could be meant."""
        declared = self.head.headers.get("content-length")
        if not (declared.isascii() and declared.isdigit()):
            return None
        return int(declared.lstrip("0")[:_LENGTH_DIGITS] or "0")

    async def _look(self) -> None:
        """Waits a while for the body's end. Raises `HttpError` 408 if it comes too slowly."""
        limit_s = self._limits.body_s
        grace_s = limit_s / 2
        age = self._loop.time() - self._began
        least = _SLOWEST_BYTES_A_SECOND * age if age >= grace_s else 0
        if age >= limit_s or len(self._body) < least:
            raise HttpError(408, "the body did not arrive in time")
        pause = grace_s - age if age < grace_s else min(_LOOK_S, limit_s - age)
        try:
            async with asyncio.timeout(pause):
                await self._arrived.wait()
        except TimeoutError:
            pass

    async def start(self, reply: Reply) -> None:
        """Sends status and headers."""
        fields = (*reply.headers, *self.stamp())
        headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        self.answered = True
        self.status = reply.status
        await self._put({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Hands one body message to the server; returns when it took it (backpressure)."""
        if not self.gone:
            self.sent_bytes += len(data)
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Ends the answer, with the last of it."""
        self._ending = True
        if not self.gone:
            self.sent_bytes += len(data)
        await self._put({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(self, reply: Reply) -> None:
        """Sends a whole answer."""
        length = ("content-length", str(len(reply.body)))
        if reply.status != 204:
            reply = Reply(reply.status, (*reply.headers, length), reply.body)
        await self.start(reply)
        await self.end(reply.body if self.head.method != "HEAD" else b"")

    async def _put(self, message: Message) -> None:
        if self.gone:
            return
        self._sender = asyncio.current_task()
        try:
            await self._send(message)
        except asyncio.CancelledError:
            # Only the wait for a client that has gone was to end, unless something else came too.
            if not self._interrupted or self._sender is None or self._sender.uncancel():
                raise
        except Exception as error:  # noqa: BLE001 - nobody can be told anything any more
            # Not of ours, but other servers' sends raise for a connection that is lost.
            if not isinstance(error, OSError):
                _log.exception("send_fault")
            self._sender = None
            self._give_up()
        finally:
            self._sender = None

    async def _pump(self) -> None:
        while True:
            try:
                message = await self._receive()
            except Exception:  # noqa: BLE001 - a server's own fault: nothing more will come
                _log.exception("receive_fault")
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect":
                self._client_gone()
                return
            if message["type"] == "http.request":
                self._take(message.get("body", b""), more=message.get("more_body", False))

    def _take(self, data: bytes, *, more: bool) -> None:
        if self._keep_body and len(self._body) + len(data) > self._limits.body_bytes:
            self._keep_body = False
            self._body.clear()
            self._arrived.set()
        if self._keep_body and not self.answered:
            self._body += data
        if not more:
            self.received_at = self._loop.time()
            self._arrived.set()

    def _client_gone(self) -> None:
        self._arrived.set()
        if self._ending:
            # Every answer that has ended is followed by this message, so it is no reason to cut
            # the last one off; yet its send may be waiting for a client that has gone.
            self._farewell = self._loop.call_later(_FAREWELL_S, self._give_up)
        else:
            self._give_up()

    def _give_up(self) -> None:
        self.gone = True
        if self._task is not None and (self.cancel_when_gone or self._ending):
            self._task.cancel()
        elif self._sender is not None:
            # A server's `send` may wait for ever for a client that has gone.
            self._interrupted = True
            self._sender.cancel()


def request_head(scope: Message) -> RequestHead:
    """The ASGI scope as a request head; header values are Latin-1 (RFC 9110 section 5.5)."""
    fields = tuple(
        (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
        for name, value in scope["headers"]
    )
    raw_path = bytes(scope.get("raw_path") or scope["path"].encode())
    version = str(scope.get("http_version", "1.1"))
    return RequestHead(
        method=scope["method"],
        path=raw_path.decode("latin-1"),
        query=bytes(scope.get("query_string", b"")).decode("latin-1"),
        headers=Headers(fields),
        http_version="2" if version.startswith("2") else version,
    )


def decode_segment(segment: str) -> str | None:
    """A path segment percent-decoded as UTF-8; None where it is not UTF-8."""
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        return None


def header_bytes(headers: Iterable[tuple[str, str]]) -> int:
    """The size of a header list as HTTP/2 counts it (RFC 9113 section 6.5.2)."""
    return sum(len(name) + len(value) + 32 for name, value in headers)
