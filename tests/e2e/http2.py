"""A raw HTTP/2 client (RFC 9113) on the h2 package, over prior knowledge or ALPN.

Keeps DATA frame boundaries, gives flow control credit only as told, can reset and flood. h2 as a
client treats any GOAWAY as the end of the connection, so a drain is tested with curl instead.
"""

import asyncio
import contextlib
import ssl
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from tests.e2e.wire import CLOCK_S, Address, Answer, Request

_WINDOW: Final = 1 << 24


class H2:
    """One connection with a task that reads it."""

    def __init__(
        self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.address = address
        self.reader = reader
        self.writer = writer
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.streams: dict[int, H2Exchange] = {}
        self.terminated: int | None = None
        self.closed = asyncio.Event()
        self.credit = asyncio.Event()  # a window may have grown, or a stream has ended
        self.generous = True
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, address: Address, tls: ssl.SSLContext | None = None, *, window: int = _WINDOW
    ) -> "H2":
        """Opens a connection; with a `window` of 0 no body byte can come until `grant`."""
        async with asyncio.timeout(CLOCK_S):
            reader, writer = await asyncio.open_connection(*address, ssl=tls)
        self = cls(address, reader, writer)
        self.generous = window > 0
        self.connection.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.connection.local_settings.acknowledge()
        self.connection.initiate_connection()
        if self.generous:
            self.connection.increment_flow_control_window(_WINDOW)
        await self.flush()
        self._task = asyncio.create_task(self._read())
        return self

    async def send(self, request: Request, *, end: bool = True) -> "H2Exchange":
        """Opens a stream; without `end` the body stays open for `data`."""
        number = self.connection.get_next_available_stream_id()
        exchange = self.streams[number] = H2Exchange(self, number)
        fields = [
            (":method", request.method),
            (":path", request.path),
            (":scheme", "https" if self.writer.get_extra_info("ssl_object") else "http"),
            (":authority", request.host or str(self.address)),
            *request.headers,
        ]
        self.connection.send_headers(number, fields, end_stream=end and not request.body)
        await self.flush()
        if request.body:
            await self._send_body(exchange, request.body, end=end)
        return exchange

    async def _send_body(self, exchange: "H2Exchange", body: bytes, *, end: bool) -> None:
        """Sends as the windows allow; stops where the other side has answered already."""
        while body and not exchange.is_over:
            self.credit.clear()
            room = self.connection.local_flow_control_window(exchange.number)
            size = min(room, self.connection.max_outbound_frame_size, len(body))
            if size:
                piece, body = body[:size], body[size:]
                self.connection.send_data(exchange.number, piece, end_stream=end and not body)
                await self.flush()
                continue
            async with asyncio.timeout(CLOCK_S):
                await self.credit.wait()

    async def flush(self) -> None:
        """Sends what h2 has ready."""
        if data := self.connection.data_to_send():
            self.writer.write(data)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(CLOCK_S):
                    await self.writer.drain()

    async def _read(self) -> None:
        try:
            while data := await self.reader.read(65536):
                for event in self.connection.receive_data(data):
                    self._dispatch(event)
                await self.flush()
        except (ConnectionError, ProtocolError, ssl.SSLError):
            pass  # what the streams have got by now is what the test judges
        finally:
            self.closed.set()
            self.credit.set()
            for exchange in self.streams.values():
                exchange.arrived.set()
                exchange.inbox.put_nowait(None)

    def _dispatch(self, event: Event) -> None:
        self.credit.set()
        if isinstance(event, ConnectionTerminated):
            self.terminated = int(event.error_code or 0)
            return
        exchange = self.streams.get(getattr(event, "stream_id", 0) or 0)
        if exchange is None:
            return
        if isinstance(event, ResponseReceived):
            exchange.take_head([(str(name), str(value)) for name, value in event.headers])
        elif isinstance(event, DataReceived):
            if event.data:
                exchange.inbox.put_nowait(event.data)
            if self.generous and event.flow_controlled_length:
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length, exchange.number
                )
        elif isinstance(event, StreamEnded):
            exchange.clean = True
            exchange.inbox.put_nowait(None)
        elif isinstance(event, StreamReset):
            exchange.answer.reset = int(event.error_code or 0)
            exchange.arrived.set()
            exchange.inbox.put_nowait(None)

    async def close(self) -> None:
        """Closes the connection with a FIN and waits for the reader."""
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            async with asyncio.timeout(CLOCK_S):
                await self.writer.wait_closed()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def __aenter__(self) -> "H2":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class H2Exchange:
    """One request on one stream."""

    def __init__(self, connection: H2, number: int) -> None:
        self.connection = connection
        self.number = number
        self.answer = Answer()
        self.arrived = asyncio.Event()
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.clean = False
        self._over = False

    @property
    def is_over(self) -> bool:
        """Whether the answer has ended or can no longer come."""
        return self.clean or self.answer.reset is not None or self.connection.closed.is_set()

    def take_head(self, fields: list[tuple[str, str]]) -> None:
        """Stores status and fields of the answer."""
        self.answer.status = int(dict(fields)[":status"])
        self.answer.headers = [field for field in fields if not field[0].startswith(":")]
        self.arrived.set()

    async def head(self) -> Answer:
        """Waits for status and fields; both stay empty if the stream died before them."""
        async with asyncio.timeout(CLOCK_S):
            await self.arrived.wait()
        return self.answer

    async def part(self) -> bytes | None:
        """One DATA frame's bytes."""
        if self._over:
            return None
        async with asyncio.timeout(CLOCK_S):
            data = await self.inbox.get()
        if data is None:
            self._over = True
            self.answer.ended = self.clean
            return None
        self.answer.parts.append(data)
        return data

    async def data(self, data: bytes, *, end: bool = False) -> None:
        """Sends more of the body, in one frame."""
        self.connection.connection.send_data(self.number, data, end_stream=end)
        await self.connection.flush()

    async def grant(self, credit: int) -> None:
        """Lets that many more body bytes come."""
        self.connection.connection.increment_flow_control_window(credit)
        self.connection.connection.increment_flow_control_window(credit, self.number)
        await self.connection.flush()

    async def vanish(self) -> None:
        """Resets the stream with CANCEL."""
        self.connection.connection.reset_stream(self.number, ErrorCodes.CANCEL)
        await self.connection.flush()
