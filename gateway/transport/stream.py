"""One answer of a model server while it is read: bytes of the connection in, events out.

A server that has said its last words gets `grace_s` to send the end mark; pings do not prolong it.
A connection that is about to come to its answer's end is given a second for it, and is kept then.
"""

import asyncio
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import ReplyTooLong, Truncated
from gateway.events import ModelEvent, ModelFinished
from gateway.ports.codecs import Decoder
from gateway.transport.failures import CLIENT_ERRORS, failure

GRACE_S: Final = 2.0
# How long a connection may take to come to the end of its answer after the model's end mark.
_LINGER_S: Final = 1.0


class HttpStream:
    """One running call (`ports.ModelStream`).

    Whatever ends it early (an error, a cancelled `read`, `close`) closes its socket.
    """

    __slots__ = (
        "_closed",
        "_content",
        "_decoder",
        "_ended",
        "_finished",
        "_grace_by",
        "_grace_s",
        "_left",
        "_lost",
        "_response",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        decoder: Decoder,
        *,
        limit: int,
        grace_s: float,
    ) -> None:
        self._response = response
        self._content = response.content
        self._decoder = decoder
        self._left = limit
        self._grace_s = grace_s
        self._grace_by: float | None = None
        self._ended = False
        self._finished = False
        self._closed = False
        self._lost = _connection_lost(response)
        if self._lost is not None:
            self._lost.add_done_callback(self._wake)

    async def read(self) -> list[ModelEvent]:
        """The events of the next read, perhaps none; the last is `ModelFinished`.

        Raises `UpstreamError` subclasses.
        """
        try:
            events = await self._next()
        except BaseException:
            self._settle()
            abort(self._response)
            raise
        if events and isinstance(events[-1], ModelFinished):
            self._finished = True
        return events

    async def close(self) -> None:
        """Ends the call. A connection that is about to come to its answer's end is kept."""
        if self._closed:
            return
        self._settle()
        if self._finished and self._lost is not None and self._content.exception() is None:
            _linger(self._response, self._lost)
        else:
            abort(self._response)

    async def _next(self) -> list[ModelEvent]:
        # An error that was found behind the last events is told before any more is waited for.
        self._decoder.feed(b"")
        if self._ended:
            return self._decoder.close()
        try:
            if self._decoder.finishing:
                chunk = await self._last_bytes()
            else:
                chunk = await read_any(self._content)
        except CLIENT_ERRORS as error:
            meaning = failure(error, answering=True)
            if not isinstance(meaning, Truncated):
                raise meaning from None
            # Broken off: the decoder knows whether anything is missing.
            chunk = b""
        if not chunk:
            self._ended = True
            return self._decoder.close()
        self._left -= len(chunk)
        if self._left < 0:
            raise ReplyTooLong("the answer is longer than it may be")
        events = self._decoder.feed(chunk)
        if events:
            self._grace_by = None
        return events

    async def _last_bytes(self) -> bytes:
        """The next bytes, or none if they do not come soon: nothing that matters is missing."""
        if self._grace_by is None:
            self._grace_by = asyncio.get_running_loop().time() + self._grace_s
        try:
            async with asyncio.timeout_at(self._grace_by) as grace:
                return await read_any(self._content)
        except TimeoutError:
            if not grace.expired():
                raise
            return b""

    def _settle(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._lost is not None:
            self._lost.remove_done_callback(self._wake)

    def _wake(self, _: "asyncio.Future[None]") -> None:
        # aiohttp closes the connection when a chunk's frame is malformed, but leaves the reader
        # of the body waiting.
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(HttpProcessingError(message="malformed body"))


async def read_any(content: aiohttp.StreamReader) -> bytes:
    """What of a body has come, none at its end. Raises `CLIENT_ERRORS`."""
    try:
        return await content.readany()
    except RuntimeError:
        # aiohttp's word for a body without an end on a connection that is no more.
        raise HttpProcessingError(message="malformed body") from None


def _connection_lost(response: aiohttp.ClientResponse) -> "asyncio.Future[None] | None":
    connection = response.connection
    if connection is None or connection.protocol is None:
        return None
    lost = connection.protocol.closed
    if lost is not None:
        # Once for each connection: its error is looked at, so that nobody complains of it.
        lost.remove_done_callback(_look)
        lost.add_done_callback(_look)
    return lost


def _look(lost: "asyncio.Future[None]") -> None:
    if not lost.cancelled():
        lost.exception()


def _linger(response: aiohttp.ClientResponse, lost: "asyncio.Future[None]") -> None:
    """Lets the end of the answer come and give its connection back, for a short time."""

    def over(_: object = None) -> None:
        timer.cancel()
        lost.remove_done_callback(over)
        abort(response)

    if response.closed:
        return
    timer = asyncio.get_running_loop().call_later(_LINGER_S, over)
    lost.add_done_callback(over)


def abort(response: aiohttp.ClientResponse) -> None:
    """Closes the socket now, even if the upstream has not yet taken the whole request."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()
