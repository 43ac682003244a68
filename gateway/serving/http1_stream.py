"""One request on an HTTP/1.1 connection, as an ASGI application sees it.

h11 reads the request; the answer is framed here. A body message of unknown length leaves as one
chunk in one write, and waits only while the client does not keep up. What is sent after the client
has gone goes nowhere, without an error; the application learns of that from `http.disconnect`.

Besides ASGI's own messages it takes `http.request.continue`, where the scope has an extension of
that name: the client waits for leave to send its body (RFC 9110 section 10.1.1).
"""

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Final, Protocol

import h11
from hypercorn.typing import ASGISendEvent
from hypercorn.utils import build_and_validate_headers, suppress_body

from gateway.serving.application import Application
from gateway.serving.http1_chunks import be_strict
from gateway.serving.http1_head import HEAD_BYTES, Head, Refused
from gateway.serving.inbox import Inbox

_HIGH_WATER: Final = 65_536
_FIELD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\0\r\n]*")
_CHUNKS: Final = 8192  # of one request's body; each costs h11 as much as a kilobyte does


class Owner(Protocol):
    """The connection that a request came on."""

    closes: bool

    def own_fields(self) -> list[tuple[bytes, bytes]]:
        """The fields that the server adds to every answer."""
        ...

    def consumed(self) -> None:
        """The application has read what there was of the request's body."""
        ...

    def answered(self, stream: "Http1Stream") -> None:
        """The answer has been written whole."""
        ...

    def app_ended(self, stream: "Http1Stream") -> None:
        """The application is done with the request, whatever became of it."""
        ...


class Outgoing:
    """The way out of a connection: bytes are written at once, and waited for above a bound."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._transport = writer.transport
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def write(self, data: bytes) -> bool:
        """Writes; whether the client keeps up, so that nothing has to be waited for."""
        if self._transport.is_closing():
            return True
        self._transport.write(data)
        return self._transport.get_write_buffer_size() <= _HIGH_WATER

    async def room(self) -> None:
        """Returns when the client has caught up, or is lost."""
        with suppress(OSError):  # whoever reads from the connection hears of it as well
            await self._writer.drain()


class Http1Stream:
    """A request that is being served.

    `served` turns true when the application has seen it, `gone` when the connection is lost or
    given up, `begun` when some of the answer has been written, `ended` when all of it has.
    `receive` and `send` are ASGI's.
    """

    def __init__(self, owner: Owner, out: Outgoing, raw: bytes, head: Head) -> None:
        self._target = head.target
        self._closes = not head.keeps_alive
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._h11.receive_data(raw)
        self._request = self._first_event()
        self.served = False
        self.gone = False
        self.begun = False
        self.ended = False
        self._owner = owner
        self._out = out
        self._inbox = Inbox(lambda _: owner.consumed())
        self.receive: Final = self._inbox.receive
        self._chunks = 0
        self._head: bytes | None = None
        self._with_body = True
        self._chunked = False
        self._left: int | None = None
        self.feed(b"")

    def _first_event(self) -> h11.Request:
        try:
            event = self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, "the request head is malformed") from error
        if not isinstance(event, h11.Request):
            raise Refused(400, "the request head is malformed")
        be_strict(self._h11)
        return event

    @property
    def uploaded(self) -> bool:
        """Whether the request has come whole."""
        return self._inbox.uploaded

    @property
    def unread(self) -> int:
        """Bytes of the body that wait for the application."""
        return len(self._inbox)

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow on the connection, once this one has come whole."""
        return self.ended and not self._closes

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the close tells the client where the answer ends (RFC 9112 section 6.3)."""
        return self._with_body and not self._chunked and self._left is None

    async def run(self, app: Application) -> None:
        """Lets the application serve the request; whatever it does, the request comes to an end."""
        request = self._request
        try:
            if not self.gone:
                self.served = True
                scope = app.scope(
                    request.method.decode("ascii"),
                    self._target,
                    list(request.headers),
                    request.http_version.decode(),
                    waits=self._h11.they_are_waiting_for_100_continue,
                )
                await app.serve(scope, self.receive, self.send)
        finally:
            self._owner.app_ended(self)

    # The request's body.

    def feed(self, data: bytes) -> bytes:
        """Some of the request's body came in; what follows the body, if anything.

        Raises `Refused`.
        """
        parts = []
        if data:
            self._h11.receive_data(data)
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(error.error_status_hint, "the body is malformed") from error
            if isinstance(event, h11.Data):
                parts.append(event.data)
                self._chunks += event.chunk_start
                if self._chunks > _CHUNKS:
                    raise Refused(400, "the body comes in too many chunks")
            else:
                end = isinstance(event, h11.EndOfMessage)
                break
        self._inbox.feed(b"".join(parts), end=end)
        return self._h11.trailing_data[0] if self.uploaded else b""

    def lose(self) -> None:
        """The client is gone."""
        self.gone = True
        self._inbox.close()

    # The answer.

    async def send(self, message: ASGISendEvent) -> None:
        """ASGI's `send`."""
        if self.gone:
            return
        if message["type"] == "http.response.body" and self._head is not None and not self.ended:
            data = message.get("body", b"")
            more = message.get("more_body", False)
            if not self._out.write(self._framed(data, more=more)):
                await self._out.room()
            if not more and not self.gone:
                self._end()
        elif message["type"] == "http.response.start" and self._head is None:
            self._start(int(message["status"]), build_and_validate_headers(message["headers"]))
        elif str(message["type"]) == "http.request.continue":
            self._invite()
        else:
            raise RuntimeError(f"{message['type']} is not for this moment")

    def _start(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """The head is kept back until there is a body message to leave with."""
        request = self._request
        length = next((int(value) for name, value in fields if name == b"content-length"), None)
        own = self._owner.own_fields()
        self._with_body = not suppress_body(request.method.decode("ascii"), status)
        if self._with_body:
            self._left = length
            self._chunked = length is None and request.http_version == b"1.1"
        if self._chunked:
            own.append((b"transfer-encoding", b"chunked"))
        if self._owner.closes or self._h11.they_are_waiting_for_100_continue:
            self._closes = True
        if self._closes:
            own.append((b"connection", b"close"))
        self._head = response_head(status, [*fields, *own])

    def _framed(self, data: bytes, *, more: bool) -> bytes:
        """A body message as it goes out, with the head before it and the end after it."""
        head, self._head = self._head or b"", b""
        self.begun = True
        end = b""
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            end = b"" if more else b"0\r\n\r\n"
        else:
            framed = data if self._with_body else b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as it was declared")
        return b"".join((head, framed, end)) if head or end else framed

    def _end(self) -> None:
        self.ended = True
        self._inbox.close()
        self._owner.answered(self)

    def _invite(self) -> None:
        """Gives leave to send the body, unless it is under way or answered already."""
        if self._h11.they_are_waiting_for_100_continue and self._head is None:
            leave = h11.InformationalResponse(status_code=100, headers=[], reason=_reason(100))
            self._out.write(self._h11.send(leave) or b"")


def response_head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of an answer (RFC 9112 section 4), empty line included.

    Raises `ValueError` for a field that would be something else than one line.
    """
    lines = [b"%b: %b" % field for field in fields]
    if not all(map(_FIELD.fullmatch, lines)):
        raise ValueError("a header field is malformed")
    return b"\r\n".join((b"HTTP/1.1 %d %b" % (status, _reason(status)), *lines, b"", b""))


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
