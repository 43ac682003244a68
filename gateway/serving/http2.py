"""The gateway's HTTP/2 (RFC 9113), in the place of Hypercorn's `H2Protocol`.

It has the entry points that Hypercorn needs of that class and runs on a `Connection`. Frames are
the business of `http2_connection`, sending of `http2_outbox`, requests of `http2_stream`; here is
what ties them together, the clocks, and the end of a connection.

Clocks: half a frame `keep_alive_timeout`, half a header block 5 s, no stream open
`keep_alive_timeout`, a client that takes nothing `unread_s`, an upload after its answer 2 s.
The end: GOAWAY that still takes new streams, after a second GOAWAY that does not, and the close
when the last stream is over (RFC 9113 section 6.8).
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.events import (
    Event as H2Event,
)
from h2.exceptions import ProtocolError
from h2.stream import H2Stream
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.typing import AppWrapper, ConnectionState, TaskGroup, WorkerContext

from gateway.messages import Reply
from gateway.serving.application import Application
from gateway.serving.connection import connection_of
from gateway.serving.connections import ServingConfig
from gateway.serving.http2_connection import STREAMS, HeadersTooLong, ServerConnection
from gateway.serving.http2_farewell import Farewell
from gateway.serving.http2_floods import Floods
from gateway.serving.http2_headers import Field, Malformed, read_request
from gateway.serving.http2_outbox import Outbox
from gateway.serving.http2_stream import Http2Stream

_HEADER_BLOCK_S: Final = 5.0
_UPLOAD_S: Final = 2.0
_UPLOAD_BYTES: Final = 65_536
_FAREWELL_S: Final = 0.5


class Http2Protocol:
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
        self._app = Application(app, connection_state, tls=ssl, client=client, server=server)
        self._config = config
        self._task_group = task_group
        self._loop = asyncio.get_running_loop()
        self._connection = connection_of(send)
        self._transport = self._connection.writer.transport
        self._h2 = ServerConnection(Floods(self._loop.time))
        self._out = Outbox(self._h2, self._connection.writer)
        self._streams: dict[int, Http2Stream] = {}
        self._uploads: dict[int, int] = {}
        self._idle_since = self._loop.time()
        self._half_since: float | None = None
        self._closing = self._leaving = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._farewell = Farewell(self._out, self._later, self.stop)

    async def initiate(self) -> None:
        """Sends the server's preface."""
        self._h2.open()
        self._out.flush()
        self._config.connections.add(self)
        self._watch()

    async def handle(self, event: Event) -> None:
        """Bytes from the client, or the end of the connection. Never waits for anybody."""
        if isinstance(event, Closed):
            self._lost()
        elif isinstance(event, RawData) and not self._closing:
            self._connection.rest(on=False)  # its clocks are kept here
            self._take(event.data)

    def _take(self, data: bytes) -> None:
        frames, before = self._h2.frames, self._h2.frames.whole
        try:
            for event in self._h2.receive_data(data):
                self._dispatch(event)
                self._h2.floods.check()
        except ProtocolError as error:
            self._hang_up(error.error_code)
            return
        if not frames.pending:
            self._half_since = None
        elif self._half_since is None or frames.whole != before:
            self._half_since = self._loop.time()
        self._out.flush()
        self._end_if_over()

    def _dispatch(self, event: H2Event) -> None:
        if isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            self._out.window_grew()
        elif isinstance(event, DataReceived):
            self._body(event)
        elif isinstance(event, RequestReceived):
            self._request(event)
        elif isinstance(event, StreamEnded):
            self._request_ended(event.stream_id)
        elif isinstance(event, StreamReset):
            if not event.remote_reset and event.stream_id not in {*self._streams, *self._uploads}:
                self._config.refused("bad_request")
            self._reset(event.stream_id)
        elif isinstance(event, HeadersTooLong):
            self._config.refused("bad_request")
            self._answer(event.stream_id, 431, ended=event.ended)
        elif isinstance(event, ConnectionTerminated):
            self._leaving = True

    def _request(self, event: RequestReceived) -> None:
        number, ended = event.stream_id, event.stream_ended is not None
        crowded = self._serving >= self._config.connections.share
        late = number > self._farewell.last_stream
        if self._is_full or late or (crowded and self._out.is_full):
            self._config.refused("draining" if late else "overloaded")
            self._reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        if crowded:
            # Not REFUSED_STREAM: who keeps to the number of streams it was told is no flood.
            self._config.refused("overloaded")
            self._answer(number, 503, (b"retry-after", b"1"), ended=ended)
            return
        opened = self._h2.streams.get(number)
        if opened is None or opened.closed:
            return  # it was reset by what came after it in the same read
        try:
            request = read_request(event.headers, ended=ended)
        except Malformed:
            self._config.refused("bad_request")
            self._reset_stream(number, ErrorCodes.PROTOCOL_ERROR)
            return
        if self._config.gate.shedding:
            reply = self._config.gate.refusal(request.for_gate(), self._app.peer)
            if reply is not None:
                self._turn_away(opened, reply, ended=ended)
                return
        stream = Http2Stream(self, opened, request)
        self._streams[number] = stream
        self._config.connections.streams += 1
        self._task_group.spawn(stream.run, self._app)

    def _turn_away(self, stream: H2Stream, reply: Reply, *, ended: bool) -> None:
        """Answers a request of which only the head was read, without a body if it does not fit."""
        fields = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
        self._head(stream.stream_id, reply.status, fields)
        self._out.flush()
        if not self._out.now(stream, reply.body) and self._out.is_full:
            self._reset_stream(stream.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._h2.end_stream(stream.stream_id)
        self._idle_since = self._loop.time()
        if not ended:
            self._linger(stream.stream_id)

    @property
    def _serving(self) -> int:
        # A handler that has answered may still have a last step to do; it holds no stream.
        return sum(not each.ended for each in self._streams.values()) + len(self._uploads)

    @property
    def _is_full(self) -> bool:
        return self._serving >= STREAMS or len(self._streams) >= 2 * STREAMS

    def _body(self, event: DataReceived) -> None:
        number, size = event.stream_id, event.flow_controlled_length
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            self._h2.acknowledge_received_data(size, number)
            self._discard(number, size)
            return
        stream.feed(event.data)
        if padding := size - len(event.data):
            self._h2.acknowledge_received_data(padding, number)

    def _request_ended(self, number: int) -> None:
        self._uploads.pop(number, None)
        stream = self._streams.get(number)
        if stream is not None and not stream.ended and not stream.feed_end():
            self._reset_stream(number, ErrorCodes.PROTOCOL_ERROR)

    def _reset_stream(self, number: int, code: ErrorCodes) -> None:
        """Ends a stream from this side, unless the client has ended it already."""
        with suppress(ProtocolError):
            self._h2.reset_stream(number, code)
        self._reset(number)

    def _reset(self, number: int) -> None:
        self._uploads.pop(number, None)
        self._out.forget(number)
        if stream := self._streams.get(number):
            stream.lose()

    # The answer's way out.

    def send_now(self, stream: H2Stream, data: bytes) -> bool:
        """Sends a body message as one frame if it fits the windows and the peer keeps up."""
        return self._out.now(stream, data)

    def consumed(self, number: int, size: int) -> None:
        """Lets the client send as much more."""
        if not self._closing:
            self._h2.acknowledge_received_data(size, number)
            self._out.flush()

    async def send_head(self, stream: Http2Stream, status: int, fields: list[Field]) -> None:
        """Sends the answer's head, once the peer keeps up."""
        if await self._has_room(stream):
            stream.begun = True
            self._head(stream.number, status, fields)
            self._out.flush()

    async def send_body(self, stream: Http2Stream, data: bytes) -> None:
        """Sends a body message; returns when it is written or can no longer be."""
        await self._out.wait(stream.stream, data)

    async def send_end(self, stream: Http2Stream) -> None:
        """Ends the answer, once the peer keeps up."""
        if await self._has_room(stream):
            self._h2.end_stream(stream.number)
            self._answered(stream)
            self._out.flush()

    async def _has_room(self, stream: Http2Stream) -> bool:
        """Waits while the peer does not keep up; False if the stream is no more."""
        if self._out.is_full:
            await self._out.wait(stream.stream)
        return not stream.gone

    def _head(self, number: int, status: int, fields: list[Field], *, end: bool = False) -> None:
        own = self._config.response_headers("h2")
        self._h2.send_headers(number, [(b":status", b"%d" % status), *fields, *own], end_stream=end)

    def _answer(self, number: int, status: int, *more: Field, ended: bool) -> None:
        """A whole answer without a body, to a request that has `ended` or whose rest is dropped."""
        request_id = uuid.uuid4().hex.encode()
        fields = [(b"content-length", b"0"), (b"x-request-id", request_id), *more]
        with suppress(ProtocolError):  # it may have been reset in the same read
            self._head(number, status, fields, end=True)
            if not ended:
                self._linger(number)

    def _answered(self, stream: Http2Stream) -> None:
        stream.answered()
        if not stream.uploaded:
            self._linger(stream.number)
        self._rest()

    def app_ended(self, stream: Http2Stream) -> None:
        """The application is done; if it did not end its answer, the client is told so."""
        if not stream.gone and not stream.ended:
            if stream.begun:
                self._reset_stream(stream.number, ErrorCodes.INTERNAL_ERROR)
            else:
                self._answer(stream.number, 500, ended=True)
                self._answered(stream)
            self._out.flush()
        del self._streams[stream.number]
        self._config.connections.streams -= 1
        self._idle_since = self._loop.time()
        self._rest()
        self._end_if_over()

    def _rest(self) -> None:
        if not self._closing and all(each.ended for each in self._streams.values()):
            self._farewell.at_rest()

    # An upload whose answer has been sent.

    def _linger(self, number: int) -> None:
        """Takes some more of an upload for nothing, so that the client comes to read its answer."""
        self._uploads[number] = _UPLOAD_BYTES
        self._later(_UPLOAD_S, self._end_upload, number)

    def _discard(self, number: int, size: int) -> None:
        if number in self._uploads:
            self._uploads[number] -= size
            if self._uploads[number] < 0:
                self._end_upload(number)

    def _end_upload(self, number: int) -> None:
        if self._uploads.pop(number, None) is not None and not self._closing:
            self._reset_stream(number, ErrorCodes.NO_ERROR)
            self._out.flush()
            self._idle_since = self._loop.time()
            self._end_if_over()

    # The end of the connection.

    def drain(self, quiet_s: float = 0.0) -> None:
        """GOAWAY in two steps; streams in flight finish, and new ones until the second step.

        The first step waits until no stream is in flight, or was yet, but no longer than `quiet_s`.
        """
        in_use = self._streams or not self._h2.highest_inbound_stream_id
        self._farewell.begin(quiet_s if in_use else 0)

    def stop(self) -> None:
        """The second step: no new streams, and the close after the last one."""
        if not self._farewell.ended and not self._closing:
            self._farewell.end(self._h2.highest_inbound_stream_id)
            self._end_if_over()

    def _end_if_over(self) -> None:
        stopped = self._farewell.ended or self._leaving
        if stopped and not self._streams and not self._uploads and not self._closing:
            self._hang_up()

    def _hang_up(self, code: ErrorCodes | None = None) -> None:
        """Ends the connection: GOAWAY unless it has been said, FIN, and a moment to read both."""
        if self._closing:
            return
        self._out.flush()
        if code is not None:
            self._farewell.say(self._h2.highest_inbound_stream_id, code)
        self._end_streams()
        # A close with bytes unread would be a reset, and the client might not read the reason.
        if self._transport.can_write_eof() and not self._transport.is_closing():
            with suppress(OSError):  # the client has closed it already
                self._transport.write_eof()
        # Somebody who has done no wrong may be slow to take the end of an answer.
        patience_s = self._config.unread_s if code is None else _FAREWELL_S
        self._loop.call_later(_FAREWELL_S, self._close, patience_s)

    def _lost(self) -> None:
        self._end_streams()
        self._close(_FAREWELL_S)

    def _end_streams(self) -> None:
        self._closing = True
        self._config.connections.remove(self)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._uploads.clear()
        for stream in self._streams.values():
            stream.lose()
        self._out.close()

    def _close(self, patience_s: float) -> None:
        self._transport.close()
        self._loop.call_later(patience_s, self._transport.abort)

    def _later(self, seconds: float, call: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            self._timers.discard(timer)
            call(*arguments)

        timer = self._loop.call_later(seconds, run)
        self._timers.add(timer)

    def _watch(self) -> None:
        """Ends what has taken too long; again and again while the connection is open."""
        now = self._loop.time()
        idle_s, unread_s = self._config.keep_alive_timeout, self._config.unread_s
        if self._out.stuck(now - unread_s):
            self._lost()
            self._transport.abort()
        elif self._is_late(now):
            self._hang_up(ErrorCodes.NO_ERROR)
        else:
            for number in self._out.stalled(now - unread_s):
                self._reset_stream(number, ErrorCodes.CANCEL)
            self._out.flush()
            self._later(min(_HEADER_BLOCK_S, idle_s, unread_s) / 3, self._watch)

    def _is_late(self, now: float) -> bool:
        """Whether the client has half sent something, or nothing to do, for too long."""
        idle_s = self._config.keep_alive_timeout
        half_s = _HEADER_BLOCK_S if self._h2.frames.in_headers else idle_s
        if self._half_since is not None and self._half_since < now - half_s:
            return True
        return not self._streams and not self._uploads and self._idle_since < now - idle_s
