"""The client of model servers: one call is one POST over HTTP/1.1, its answer read as it comes.

What is refused rather than trusted: redirects (RFC 9110 section 15.4), encoded answers (section
8.4; identity is asked for), cookies, proxies from the environment, heads with lines over 16 KiB,
answers over `stream_bytes`. TLS certificates are verified.

Connections are kept and reused. The server may close one at the moment when it is taken from the
pool (RFC 9112 section 9.3.1): a call that gets not one byte of an answer on a reused connection is
sent once more. One on which the server said something unasked is not used again (section 9.2): it
would be taken for the answer to somebody else's call.

Clocks: `connect_s` runs here, waiting for a place in the pool included. The caller watches the
first token, the silences and the whole, and cancels.
"""

import asyncio
import socket
import ssl
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

from gateway.errors import UpstreamProtocolError, UpstreamUnavailable
from gateway.messages import Headers, Prompt, UpstreamRequest
from gateway.ports.codecs import Decoder, Upstream
from gateway.transport.failures import CLIENT_ERRORS, failure
from gateway.transport.stream import GRACE_S, HttpStream, abort, read_any

# A token of a few bytes comes in an event of some hundred: room for all of a longest reply's.
STREAM_BYTES: Final = 64 * 1024 * 1024

_HEAD_LINE: Final = 16 * 1024
# A reader that is slower than its model stops the socket at twice this.
_READ_BUFFER: Final = 16 * 1024
_ERROR_BODY_BYTES: Final = 64 * 1024
_ERROR_BODY_S: Final = 3.0
# Linux: how long a peer may leave sent bytes unacknowledged, or keep its window shut.
_UNREAD_MS: Final = 30_000
_OWN_HEADERS: Final = (("accept-encoding", "identity"), ("user-agent", "chat-gateway"))


@dataclass(slots=True)
class _Attempt:
    reused: bool = False


# What the call that runs in this context is making, for the pool to note how it was connected.
_attempt: Final[ContextVar[_Attempt]] = ContextVar("attempt")


class _Connector(aiohttp.TCPConnector):
    """A pool that lends no connection on which the server spoke while nobody had asked.

    aiohttp would take that for the answer to the next request.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__(limit=limit, keepalive_timeout=15, socket_factory=_socket)
        self._lent: weakref.WeakSet[ResponseHandler] = weakref.WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or protocol not in self._lent or not protocol.should_close:
                break
            connection.close()
        _attempt.get().reused = protocol in self._lent
        if protocol is not None:
            self._lent.add(protocol)
        return connection


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    return made


def open_session(*, limit: int = 0) -> aiohttp.ClientSession:
    """The connections that the models of one worker share; the caller closes the session.

    `limit` is the number of calls that may be in flight, 0 for any.
    """
    return aiohttp.ClientSession(
        # Twice: a connection whose call is over may still be reading the end of its answer.
        connector=_Connector(limit=2 * limit),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_READ_BUFFER,
        max_line_size=_HEAD_LINE,
        max_field_size=_HEAD_LINE,
    )


class HttpServer:
    """A model server behind one base URL.

    A base URL that ends with the version with which the codec's path begins is joined so that the
    version stands once. `tls` replaces the machine's own list of trusted authorities.
    """

    def __init__(
        self,
        *,
        codec: Upstream,
        session: aiohttp.ClientSession,
        base_url: str,
        connect_s: float,
        tls: ssl.SSLContext | None = None,
        one_connection_per_request: bool = False,
        stream_bytes: int = STREAM_BYTES,
        grace_s: float = GRACE_S,
    ) -> None:
        self._codec = codec
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._connect_s = connect_s
        self._tls: ssl.SSLContext | bool = tls or True
        self._single_use = one_connection_per_request
        self._stream_bytes = stream_bytes
        self._grace_s = grace_s

    async def call(
        self,
        prompt: Prompt,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        connect_s: float | None = None,
    ) -> HttpStream:
        """Sends the prompt and waits for a good answer's head; `headers` go along.

        `connect_s` is what is left of the server's own. Raises `GatewayError`.
        """
        request = self._codec.encode_request(prompt)
        response = await self._send(request, headers, connect_s or self._connect_s)
        try:
            decoder = await self._decoder(response, prompt)
        except BaseException:
            abort(response)
            raise
        return HttpStream(response, decoder, limit=self._stream_bytes, grace_s=self._grace_s)

    async def _send(
        self, request: UpstreamRequest, headers: tuple[tuple[str, str], ...], connect_s: float
    ) -> aiohttp.ClientResponse:
        # No clock over the whole: aiohttp would enter and leave it with every read.
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_s, sock_connect=connect_s)
        url = URL(_joined(self._base_url, request.path), encoded=True)
        fields: CIMultiDict[str] = CIMultiDict(_OWN_HEADERS)
        fields.update(request.headers)
        fields.update(headers)
        if self._single_use:
            fields["connection"] = "close"
        again = False
        while True:
            attempt = _Attempt()
            _attempt.set(attempt)
            try:
                response = await self._session.post(
                    url,
                    data=request.body,
                    headers=fields,
                    timeout=timeout,
                    allow_redirects=False,
                    ssl=self._tls,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if again or not attempt.reused or not _silent(error):
                    raise failure(error, answering=False) from None
                again = True
            except CLIENT_ERRORS as error:
                raise failure(error, answering=False) from None
            except RuntimeError as error:
                if not self._session.closed:
                    raise
                raise UpstreamUnavailable("the connections are closed") from error
            else:
                connection = response.connection
                if self._single_use and connection is not None and connection.protocol is not None:
                    connection.protocol.force_close()
                return response

    async def _decoder(self, response: aiohttp.ClientResponse, prompt: Prompt) -> Decoder:
        if response.status != 200:
            body = await _error_body(response)
            fields = tuple((name.lower(), value) for name, value in response.headers.items())
            # A `Retry-After` may be a date, and an answer may be without one of its own.
            fields += (("date", formatdate(usegmt=True)),)
            raise self._codec.decode_error(response.status, Headers(fields), body)
        if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
            raise UpstreamProtocolError("the answer is encoded, though identity was asked for")
        return self._codec.decoder(
            response.headers.get("content-type", ""),
            rounds=prompt.rounds,
            citations=prompt.citations,
        )


async def _error_body(response: aiohttp.ClientResponse) -> bytes:
    """What comes of an error's body in a short time; cut at 64 KiB."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ERROR_BODY_S):
            while len(body) < _ERROR_BODY_BYTES:
                chunk = await read_any(response.content)
                if not chunk:
                    break
                body += chunk
    except CLIENT_ERRORS:
        # The status says enough; what came of the body may say more.
        return bytes(body)
    return bytes(body[:_ERROR_BODY_BYTES])


def _joined(base_url: str, path: str) -> str:
    version = path[: path.find("/", 1)]
    if version.startswith("/v") and base_url.endswith(version):
        return base_url + path.removeprefix(version)
    return base_url + path


def _silent(error: aiohttp.ServerDisconnectedError | aiohttp.ClientOSError) -> bool:
    # aiohttp puts a head that was cut short into the error, where its text would be.
    return not isinstance(error, aiohttp.ServerDisconnectedError) or isinstance(error.message, str)
