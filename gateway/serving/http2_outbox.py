"""What leaves one HTTP/2 connection: frames written to the transport as windows and peer allow.

A body message that fits goes out at once, as one DATA frame in one write. Any other waits in its
sender: nothing is copied or queued here, so a stream holds one message at most. Whoever waits is
served a frame in turn, and woken at once when its stream or the connection is no more.
"""

import asyncio
from dataclasses import dataclass
from struct import Struct
from typing import Final

from h2.stream import H2Stream

from gateway.serving.http2_connection import ServerConnection

_HIGH_WATER: Final = 32_768
_DATA_HEADER: Final = Struct(">HBBBL")  # length in two parts, type, flags, stream (RFC 9113 4.1)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A sender that waits; `left` is empty if only the transport has to have room."""

    left: memoryview
    stream: H2Stream
    served: asyncio.Future[None]
    moved_at: float


class Outbox:
    """The sending side of a connection."""

    def __init__(self, connection: ServerConnection, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._writer = writer
        self._transport = writer.transport
        if not self._transport.is_closing():
            self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._floods = connection.floods
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[_Waiting, None] = {}  # in the order in which they are served
        self._full = False
        self._draining: asyncio.Task[None] | None = None
        self._written = 0
        self._taken = 0
        self._taken_at = self._loop.time()

    def flush(self, more: bytes = b"") -> None:
        """Writes the frames that h2 has made, and `more` frames with them."""
        if data := self._connection.data_to_send() + more:
            self.raw(data)

    def raw(self, data: bytes) -> None:
        """Writes frames as they are."""
        self._written += len(data)
        if not self._transport.is_closing():
            self._transport.write(data)

    def now(self, stream: H2Stream, data: bytes) -> bool:
        """Writes the message as one DATA frame; False if it has to wait."""
        size = len(data)
        connection = self._connection
        if (
            self._full
            or size > stream.outbound_flow_control_window
            or size > connection.outbound_flow_control_window
            or size > connection.max_outbound_frame_size
            or self._transport.get_write_buffer_size() > _HIGH_WATER
            or self._transport.is_closing()
        ):
            return False
        self._frame(stream, data, size)
        return True

    def _frame(self, stream: H2Stream, data: bytes | memoryview, size: int) -> None:
        # Past h2, whose own way costs as much as all the rest; the windows are all it has to know.
        stream.outbound_flow_control_window -= size
        self._connection.outbound_flow_control_window -= size
        self._floods.data_sent += 1
        self._written += size + 9
        header = _DATA_HEADER.pack(size >> 8, size & 0xFF, 0, 0, stream.stream_id)
        self._transport.write(b"".join((header, data)))

    async def wait(self, stream: H2Stream, data: bytes = b"") -> None:
        """Returns when all of the message is written, or its stream or the connection is no more.

        Without a message it returns when the transport has room.
        """
        waiting = _Waiting(memoryview(data), stream, self._loop.create_future(), self._loop.time())
        self._waiting[waiting] = None
        self._serve()
        try:
            await waiting.served
        finally:
            self._waiting.pop(waiting, None)

    @property
    def is_full(self) -> bool:
        """Whether the peer has to take something before more is written."""
        if self._full or self._transport.is_closing():
            return True  # of a connection that is lost the owner hears by its reader
        if self._transport.get_write_buffer_size() <= _HIGH_WATER:
            return False
        self._full = True
        self._draining = self._loop.create_task(self._drain())
        return True

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            return  # the connection is lost, and the owner is told so
        self._full = False
        self._serve()

    def window_grew(self) -> None:
        """More may be sent on a stream, or on all of them."""
        if self._waiting:
            self._serve()

    def _serve(self) -> None:
        """Writes what waits, a frame of each stream in turn."""
        moved = True
        while moved and self._waiting:
            moved = False
            for waiting in list(self._waiting):
                if self.is_full:
                    return
                if not self._serve_one(waiting):
                    continue
                moved = True
                del self._waiting[waiting]
                if waiting.left:
                    self._waiting[waiting] = None  # behind those that have got nothing yet
                elif not waiting.served.done():
                    waiting.served.set_result(None)

    def _serve_one(self, waiting: _Waiting) -> bool:
        """Whether something of it could be written, or nothing was left to write."""
        left = len(waiting.left)
        size = min(
            left,
            waiting.stream.outbound_flow_control_window,
            self._connection.outbound_flow_control_window,
            self._connection.max_outbound_frame_size,
        )
        if size > 0:
            self._frame(waiting.stream, waiting.left[:size], size)
            waiting.left = waiting.left[size:]
            waiting.moved_at = self._loop.time()
        return size > 0 or not left

    def forget(self, number: int) -> None:
        """A stream is no more: whoever waits on it goes on."""
        self._release([it for it in self._waiting if it.stream.stream_id == number])

    def close(self) -> None:
        """The connection is no more: everybody who waits goes on."""
        self._release(list(self._waiting))
        if self._draining is not None:
            self._draining.cancel()

    def _release(self, all_of: list[_Waiting]) -> None:
        for waiting in all_of:
            del self._waiting[waiting]
            if not waiting.served.done():
                waiting.served.set_result(None)

    def stalled(self, since: float) -> list[int]:
        """The streams whose client has let nothing through since then."""
        if self._full:
            return []  # it is not the window that they wait for
        return [it.stream.stream_id for it in self._waiting if it.moved_at < since]

    def stuck(self, since: float) -> bool:
        """Whether the peer has taken nothing since then of what is written."""
        unsent = self._transport.get_write_buffer_size()
        taken = self._written - unsent
        if not unsent or taken != self._taken:
            self._taken = taken
            self._taken_at = self._loop.time()
        return self._taken_at < since
