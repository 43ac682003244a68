"""HTTP/2 frames in, events and frames out: h2's server connection, made safe for strangers.

No sockets and no clocks of its own. What differs from h2 (RFC 9113):
- a fault of one request costs its stream, not the connection;
- a frame that is too long is refused when its header is there, not when all of it is;
- the number of streams is for the owner to bound, after the header block has been decoded;
- GOAWAY from the client lets the streams that it has open finish; PRIORITY means nothing;
- frames are counted (`http2_floods`), and the client's table for our fields stays small.

It relies on h2's insides, so `serving.protocols` names the versions that it was tested with.
"""

from typing import Final

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    Event,
    RequestReceived,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import (
    FrameTooLargeError,
    InvalidBodyLengthError,
    ProtocolError,
    StreamClosedError,
)
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamClosedBy, StreamState
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gateway.serving.http2_floods import Flood, Floods
from gateway.serving.http2_headers import HeaderDecoder, has_bad_name

STREAMS: Final = 100
_MOST_STREAMS: Final = 2 * STREAMS  # in one read; the owner refuses those over the limit
_HEADER_LIST_BYTES: Final = 16_384
_BLOCK_BYTES: Final = 24_576
_CONNECTION_WINDOW: Final = 1_048_576
_DEFAULT_WINDOW: Final = 65_535
_TABLE_BYTES: Final = 4096
_KNOWN: Final = frozenset(int(code) for code in SettingCodes)

Answer = tuple[list[Frame], list[Event]]


class HeadersTooLong(Event):
    """A request came whose fields are more than anybody reads; it wants a 431."""

    def __init__(self, stream_id: int, *, ended: bool) -> None:
        self.stream_id = stream_id
        self.ended = ended


class FrameReader(FrameBuffer):
    """h2's buffer of bytes not yet read as frames, never longer than a frame may be.

    `whole` counts the frames that came out, a header block as one or more.
    """

    def __init__(self, floods: Floods) -> None:
        super().__init__(server=True)
        self.whole = 0
        self._floods = floods
        self._continuations = 0
        self._block_bytes = 0

    def __next__(self) -> Frame:
        start = self._data[:3]
        if len(start) == 3 and int.from_bytes(start, "big") > self.max_frame_size:
            raise FrameTooLargeError("the frame's header announces too much")
        frame = super().__next__()
        self.whole += 1
        return frame

    @property
    def pending(self) -> bool:
        """Whether a part of a frame, of a header block or of the preface is here."""
        return bool(self._data or self._headers_buffer or self._preamble_len)

    @property
    def in_headers(self) -> bool:
        """Whether what is pending belongs to a header block."""
        return bool(self._headers_buffer) or (len(self._data) > 3 and self._data[3] in (1, 9))

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        if isinstance(f, ContinuationFrame):
            self._continuations += 1
            self._block_bytes += len(f.data)
            self._floods.continuation(self._continuations, len(f.data))
        elif isinstance(f, HeadersFrame):
            self._continuations = 0
            self._block_bytes = len(f.data)
        if self._block_bytes > _BLOCK_BYTES:
            raise Flood("a header block that is too long")
        return super()._update_header_buffer(f)


class ServerConnection(H2Connection):
    """One client's connection; `receive_data` raises `ProtocolError` when it has to be closed."""

    # h2 keeps how a stream was closed, for frames that come late; these many are enough.
    MAX_CLOSED_STREAMS = 1000

    def __init__(self, floods: Floods) -> None:
        super().__init__(
            H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        )
        self.floods = floods
        self.frames = self.incoming_buffer = FrameReader(floods)
        self.fields_decoder = self.decoder = HeaderDecoder()
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_LIST_BYTES,
            },
        )

    def open(self) -> None:
        """Makes the server's preface ready to send."""
        self.initiate_connection()
        self.increment_flow_control_window(_CONNECTION_WINDOW - _DEFAULT_WINDOW)

    def _returned(self, size: int) -> list[Frame]:
        """Gives the connection's window back what came for a stream that is no more."""
        increment = self._inbound_flow_control_window_manager.process_bytes(size)
        if not increment:
            return []
        frame = WindowUpdateFrame(0)
        frame.window_increment = increment
        return [frame]

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        for frame in frames:
            if isinstance(frame, RstStreamFrame):
                self.floods.fault()
        super()._prepare_for_sending(frames)

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        """Nothing: the owner says GOAWAY, also for what h2 finds before it reads frames."""

    def _receive_frame(self, frame: Frame) -> list[Event]:
        self.floods.received(frame)
        return super()._receive_frame(frame)

    def _receive_headers_frame(self, frame: HeadersFrame) -> Answer:
        if frame.stream_id not in self.streams and self.open_inbound_streams >= _MOST_STREAMS:
            raise Flood("too many streams at once")
        fields = self.fields_decoder.fields(bytes(frame.data))
        overlong = self.fields_decoder.overlong
        events: list[Event] = self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        stream = self._get_or_create_stream(frame.stream_id, AllowedStreamIDs.ODD)
        ended = "END_STREAM" in frame.flags
        try:
            _, found = stream.receive_headers(fields, ended, None)
        except StreamClosedError:
            raise
        except ProtocolError:
            return self._stream_fault(stream)
        if isinstance(found[0], TrailersReceived):
            if overlong or has_bad_name(found[0].headers or []):
                return self._stream_fault(stream)
        elif overlong:
            self.floods.fault()
            return [], [*events, HeadersTooLong(frame.stream_id, ended=ended)]
        elif not isinstance(found[0], RequestReceived):
            return self._stream_fault(stream)
        return [], [*events, *found]

    def _receive_data_frame(self, frame: DataFrame) -> Answer:
        try:
            return super()._receive_data_frame(frame)
        except InvalidBodyLengthError:
            frames, events = self._stream_fault(self.streams[frame.stream_id])
            return [*self._returned(frame.flow_controlled_length), *frames], events

    def _handle_data_on_closed_stream(
        self, events: list[Event], exc: StreamClosedError, frame: DataFrame
    ) -> Answer:
        self.floods.late()
        frames, events = super()._handle_data_on_closed_stream(events, exc, frame)
        if not any(isinstance(event, StreamReset) for event in events):
            # It has been told already, and may not have heard of it (RFC 9113 section 5.1).
            frames = [frame for frame in frames if not isinstance(frame, RstStreamFrame)]
        return frames, events

    def _receive_priority_frame(self, frame: HeadersFrame | PriorityFrame) -> Answer:
        return [], []

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> Answer:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        return [], [event]

    def _receive_settings_frame(self, frame: SettingsFrame) -> Answer:
        # h2 remembers every setting that it is told, and there can be 65,536 of them.
        frame.settings = {code: value for code, value in frame.settings.items() if code in _KNOWN}
        return super()._receive_settings_frame(frame)

    def _acknowledge_settings(self) -> list[Frame]:
        frames = super()._acknowledge_settings()
        if self.encoder.header_table_size > _TABLE_BYTES:
            self.encoder.header_table_size = _TABLE_BYTES
        return frames

    def _stream_fault(self, stream: H2Stream) -> Answer:
        """Resets one stream for what its client did wrong (RFC 9113 section 5.4.2)."""
        stream.state_machine.state = StreamState.CLOSED
        stream.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
        frame = RstStreamFrame(stream.stream_id)
        frame.error_code = ErrorCodes.PROTOCOL_ERROR
        event = StreamReset(
            stream_id=stream.stream_id, error_code=ErrorCodes.PROTOCOL_ERROR, remote_reset=False
        )
        return [frame], [event]
