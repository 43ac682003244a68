"""The gateway's HTTP/1.1 (RFC 9112), in the place of Hypercorn's `H11Protocol`.

It has the entry points that Hypercorn needs of that class and runs on a `Connection`. Requests are
served one after another and answered in their order; what is sent ahead is kept up to a bound and
then not read. What a head has to be like is the business of `http1_head`, a request's that of
`http1_stream`; here is what ties them together, the clocks, and the end of a connection. A client
that closes its side, even only for writing, is gone.

HTTP/2 begins with its preface, as the first bytes of a connection without TLS. `Upgrade` is
ignored, as RFC 9110 section 7.8 allows: no request gets past a proxy in a tunnel.

Clocks: a head 5 s from its first byte, no request `keep_alive_timeout`, the rest of an upload
after its answer 2 s (and 64 KiB), the close after a refusal 2 s.
"""

import asyncio
import socket
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from struct import pack
from typing import Final

from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext

from gateway.messages import Reply
from gateway.replies import json_reply
from gateway.serving.application import Application
from gateway.serving.connection import connection_of
from gateway.serving.connections import ServingConfig
from gateway.serving.http1_head import Head, Refused, head_end, read_head
from gateway.serving.http1_stream import Http1Stream, Outgoing, response_head

_HEAD_S: Final = 5.0
_LINGER_S: Final = 2.0
_NO_LINGER: Final = pack("ii", 1, 0)
_LINGER_BYTES: Final = 65_536
_AHEAD_BYTES: Final = 65_536
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"


class Http1Protocol:
    """One connection."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        connection_state: ConnectionState,
        ssl: bool,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        if not isinstance(config, ServingConfig):
            raise TypeError("the configuration has to be a ServingConfig")
        self.closes = False
        self._app = Application(app, connection_state, tls=ssl, client=client, server=server)
        self._config = config
        self._task_group = task_group
        self._connection = connection_of(send)
        self._transport = self._connection.writer.transport
        self._out = Outgoing(self._connection.writer)
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._seen = 0
        self._stream: Http1Stream | None = None
        self._may_be_http2 = not ssl
        self._closing = False
        self._discarded = 0
        self._clock: asyncio.TimerHandle | None = None

    async def initiate(self) -> None:
        """The connection is open."""
        self._config.connections.add(self)

    async def handle(self, event: Event) -> None:
        """Bytes from the client, or the end of the connection. Never waits for anybody.

        Raises Hypercorn's `H2ProtocolAssumedError`: its caller goes on with HTTP/2.
        """
        if isinstance(event, Closed):
            self._lost()
        elif isinstance(event, RawData) and self._closing:
            self._discarded += len(event.data)
            if self._discarded > _LINGER_BYTES:
                self._transport.close()
        elif isinstance(event, RawData):
            self._buffer += event.data
            self._advance()

    def _advance(self) -> None:
        """Takes out of the buffer what can be served now."""
        try:
            while self._buffer and not self._closing:
                if self._stream is None:
                    if not self._begin():
                        break
                elif self._stream.uploaded:
                    break  # the next request waits for its turn
                else:
                    self._feed(self._stream)
        except Refused as refused:
            self._refuse(refused)
        self.consumed()

    def _begin(self) -> bool:
        """Begins with the next request; False while its head has not come whole."""
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]  # RFC 9112 section 2.2
        if not self._buffer:
            return False
        end = head_end(self._buffer, self._seen)
        if end < 0:
            self._seen = len(self._buffer)
            if self._clock is None:
                self._connection.rest(on=False)
                self._clock = self._loop.call_later(_HEAD_S, self._head_is_late)
            return False
        self._stop_clock()
        self._connection.rest(on=False)
        if self._may_be_http2 and self._buffer.startswith(_PREFACE):
            self._config.connections.remove(self)
            raise H2ProtocolAssumedError(bytes(self._buffer))
        self._may_be_http2 = False
        self._seen = 0
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        head = read_head(raw)
        if self._config.gate.shedding:
            reply = self._config.gate.refusal(head.for_gate(), self._app.peer)
            if reply is not None:
                self._turn_away(head, reply)
                return True
        self._stream = stream = Http1Stream(self, self._out, raw, head)
        self._task_group.spawn(stream.run, self._app)
        return True

    def _feed(self, stream: Http1Stream) -> None:
        """Gives a request what came of its body, or drops it if it has been answered."""
        size = len(self._buffer)
        self._buffer[:] = stream.feed(bytes(self._buffer))
        if not stream.ended:
            return
        self._discarded += size - len(self._buffer)
        if stream.uploaded or self._discarded > _LINGER_BYTES:
            self._stop_clock()
            self._next(stream)

    def consumed(self) -> None:
        """Reads on, unless the client is too far ahead of what is being served."""
        unread = self._stream.unread if self._stream is not None else 0
        if not self._closing and max(unread, len(self._buffer)) > _AHEAD_BYTES:
            self._connection.hold()
        else:
            self._connection.go_on()

    # The end of a request.

    def own_fields(self) -> list[tuple[bytes, bytes]]:
        """The fields that the server adds to every answer."""
        self.closes = self.closes or self._config.connections.draining
        return self._config.response_headers("h11")

    def answered(self, stream: Http1Stream) -> None:
        """The answer has been written whole: on, once the rest of an upload has been dropped."""
        if self._closing:
            return
        if stream.uploaded or not stream.keeps_alive:
            self._next(stream)
        else:
            self._discarded = 0
            self._clock = self._loop.call_later(_LINGER_S, self._hang_up)

    def _next(self, stream: Http1Stream) -> None:
        """On to the next request, or the end."""
        if not stream.uploaded:
            self._hang_up()
        elif not stream.keeps_alive or self._config.connections.stopping:
            if self._buffer:
                self._hang_up()
            else:
                self._end()
        else:
            self._stream = None
            self._connection.rest(on=True)
            self._advance()

    def app_ended(self, stream: Http1Stream) -> None:
        """If the application did not end its answer, the connection ends for it."""
        if stream.gone or stream.ended:
            return
        if stream.begun and stream.ends_with_connection:
            self._break_off()
        else:
            self._refuse(Refused(500, "Internal server error"))

    def _turn_away(self, head: Head, reply: Reply) -> None:
        """Answers a request of which only the head was read."""
        size = head.body_bytes
        stays = (
            size is not None
            and size == len(self._buffer)  # what was sent ahead may be sent again elsewhere
            and head.keeps_alive
            and not self._config.connections.draining
        )
        keeps_up = self._out.write(self._answer(reply, close=not stays))
        if stays and keeps_up:
            self._buffer.clear()
            self._connection.rest(on=True)
        else:
            self._hang_up()

    def _head_is_late(self) -> None:
        self._refuse(Refused(408, "the request did not arrive in time"))

    def _refuse(self, refused: Refused) -> None:
        """Answers what nobody serves, unless an answer has begun, and ends the connection."""
        stream = self._stream
        if self._closing:
            return
        if stream is None or not stream.served:
            self._config.refused("bad_request")
        if stream is None or not stream.begun:
            error = json_reply(refused.status, {"error": str(refused)})
            request_id = ("x-request-id", uuid.uuid4().hex)
            reply = replace(error, headers=(*error.headers, request_id))
            self._out.write(self._answer(reply, close=True))
        self._hang_up()

    def _answer(self, reply: Reply, *, close: bool) -> bytes:
        fields = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
        fields += self._config.response_headers("h11")
        fields.append((b"content-length", b"%d" % len(reply.body)))
        if close:
            fields.append((b"connection", b"close"))
        return response_head(reply.status, fields) + reply.body

    # The end of the connection.

    def drain(self, quiet_s: float = 0.0) -> None:
        """Answers whose head is yet to go say that the connection ends with them."""

    def stop(self) -> None:
        """A connection without a request is closed, another one after its answer."""
        if self._stream is None:
            self._end()

    def _hang_up(self) -> None:
        """Ends the connection while the client may still be sending.

        A close with bytes unread would be a reset, and the client might not read its answer.
        """
        self._leave()
        if self._transport.can_write_eof() and not self._transport.is_closing():
            with suppress(OSError):  # the client may have closed it already
                self._transport.write_eof()
        self._clock = self._loop.call_later(_LINGER_S, self._transport.close)

    def _end(self) -> None:
        self._leave()
        self._transport.close()

    def _break_off(self) -> None:
        """Ends the connection with a reset: after a FIN an answer without a length is whole."""
        self._leave()
        found = self._transport.get_extra_info("socket")
        with suppress(OSError):  # the client may have closed it already
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()

    def _lost(self) -> None:
        self._leave()
        self._stop_clock()

    def _leave(self) -> None:
        """Nothing more is served here."""
        self._closing = True
        self._discarded = 0
        self._config.connections.remove(self)
        self._stop_clock()
        self._connection.rest(on=False)
        self._buffer.clear()
        if self._stream is not None:
            self._stream.lose()
        self._connection.go_on()

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
