"""One request on one HTTP/2 stream, as an ASGI application sees it.

What the application has not yet read of the body is bounded by the stream's window, which grows
only as it reads. What it sends after the client has gone goes nowhere, without an error; it
learns of that from `http.disconnect`.
"""

from functools import partial
from typing import Final, Protocol

from h2.stream import H2Stream
from hypercorn.typing import ASGISendEvent
from hypercorn.utils import build_and_validate_headers, suppress_body

from gateway.serving.application import Application
from gateway.serving.http2_headers import Field, RequestFields
from gateway.serving.inbox import Inbox


class Owner(Protocol):
    """The connection that a stream is on."""

    async def send_head(self, stream: "Http2Stream", status: int, fields: list[Field]) -> None:
        """Sends the answer's head, once the peer keeps up."""
        ...

    def send_now(self, stream: H2Stream, data: bytes) -> bool:
        """Sends a body message if nothing has to be waited for."""
        ...

    async def send_body(self, stream: "Http2Stream", data: bytes) -> None:
        """Sends a body message; returns when it is written or can no longer be."""
        ...

    async def send_end(self, stream: "Http2Stream") -> None:
        """Ends the answer, once the peer keeps up."""
        ...

    def app_ended(self, stream: "Http2Stream") -> None:
        """The application is done with the request, whatever became of it."""
        ...

    def consumed(self, number: int, size: int) -> None:
        """That much of the request's body has been read, or will never be."""
        ...


class Http2Stream:
    """A stream whose request is being served.

    `gone` turns true when the client reset it or the connection is lost, `ended` when the answer
    has been sent whole. `receive` and `send` are ASGI's.
    """

    def __init__(self, owner: Owner, stream: H2Stream, request: RequestFields) -> None:
        self.number: Final = stream.stream_id
        self.stream: Final = stream
        self.gone = False
        self.begun = False
        self.ended = False
        self._owner = owner
        self._request = request
        self._with_body = True
        self._inbox = Inbox(partial(owner.consumed, self.number))
        self.receive: Final = self._inbox.receive
        self._received = 0

    @property
    def uploaded(self) -> bool:
        """Whether the request has come whole."""
        return self._inbox.uploaded

    async def run(self, app: Application) -> None:
        """Lets the application serve the request; whatever it does, the stream comes to an end."""
        request = self._request
        try:
            if not self.gone:
                scope = app.scope(request.method, request.target, request.fields, "2")
                await app.serve(scope, self.receive, self.send)
        finally:
            self._owner.app_ended(self)

    def feed(self, data: bytes) -> None:
        """Some of the request's body came in."""
        self._received += len(data)
        self._inbox.feed(data, end=False)

    def feed_end(self) -> bool:
        """The request has come whole; False if its body is not as long as it said."""
        if self._request.length is not None and self._received != self._request.length:
            return False
        self._inbox.feed(b"", end=True)
        return True

    def lose(self) -> None:
        """The client is gone."""
        self.gone = True
        self._drop()

    async def send(self, message: ASGISendEvent) -> None:
        """ASGI's `send`."""
        if self.gone:
            return
        if message["type"] == "http.response.body" and self.begun and not self.ended:
            data = message.get("body", b"")
            if data and self._with_body and not self._owner.send_now(self.stream, data):
                await self._owner.send_body(self, data)
            if not message.get("more_body", False):
                await self._owner.send_end(self)
        elif message["type"] == "http.response.start" and not self.begun:
            status = int(message["status"])
            self._with_body = not suppress_body(self._request.method, status)
            fields = build_and_validate_headers(message.get("headers", []))
            await self._owner.send_head(self, status, fields)
        else:
            raise RuntimeError(f"{message['type']} is not for this moment")

    def answered(self) -> None:
        """The answer has been sent whole."""
        self.ended = True
        self._drop()

    def _drop(self) -> None:
        # Unread as it is, it has to be given back to the window that all streams share.
        if unread := self._inbox.close():
            self._owner.consumed(self.number, unread)
