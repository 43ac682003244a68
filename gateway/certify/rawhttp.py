"""HTTP/1.1 on plain asyncio streams, both sides of the gateway (RFC 9112).

`CutUpstream` is a model server that sends the beginning of a recording and then breaks off or
falls silent. `Client` asks and says whether the answer's body came to its proper end.
"""

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from gateway.certify.recordings import Recording
from gateway.chat.target import Request

_HEAD_BYTES: Final = 64 * 1024
_CLOCK_S: Final = 20.0
_CUT: Final = re.compile(rb"^x-request-id: *cut-(\d+)\r$", re.IGNORECASE | re.MULTILINE)
_LENGTH: Final = re.compile(rb"^content-length: *(\d+)\r$", re.IGNORECASE | re.MULTILINE)

Address = tuple[str, int]


class CutUpstream:
    """Serves one recording; the request's id says after how many bytes it stops.

    `hush`: the connection stays open in silence until the gateway closes it. Else it is closed,
    of odd cuts in the middle of a chunked body, of even ones where a body without length ends.
    """

    def __init__(self, recording: Recording, *, hush: bool) -> None:
        self._recording = recording
        self._hush = hush
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Address:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(_CLOCK_S):
                await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if length := _LENGTH.search(head):
            await reader.readexactly(int(length[1]))
        named = _CUT.search(head)
        cut = int(named[1]) if named else 0
        data = self._recording.data[:cut]
        chunked = cut % 2 == 1
        writer.write(self._head(chunked=chunked))
        writer.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        await writer.drain()
        if self._hush:
            await reader.read()

    def _head(self, *, chunked: bool) -> bytes:
        framing = "transfer-encoding: chunked\r\n" if chunked else ""
        return (
            f"HTTP/1.1 200 OK\r\ncontent-type: {self._recording.content_type}\r\n"
            f"{framing}connection: close\r\n\r\n"
        ).encode()


@dataclass(slots=True)
class Answer:
    """An answer; `parts` are its chunks, or its body. `fault` says what is wrong with its form."""

    status: int
    headers: dict[str, str]
    parts: list[bytes]
    fault: str | None = None


class Client:
    """One connection that is kept, opened again when the other side closed it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Request) -> Answer:
        """The whole answer. Raises `OSError`, `TimeoutError` and `EOFError`."""
        async with asyncio.timeout(_CLOCK_S):
            try:
                reader, writer = await self._connection()
                await _write(writer, request, self._address)
                answer = await _read(reader)
            except BaseException:
                self.close()
                raise
        if answer.fault or answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection(*self._address, limit=_HEAD_BYTES)
        return self._streams

    def close(self) -> None:
        """Closes the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _write(writer: asyncio.StreamWriter, request: Request, address: Address) -> None:
    fields = {"host": f"{address[0]}:{address[1]}", **request.headers}
    fields["content-length"] = str(len(request.body))
    lines = [f"{request.method} {request.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + request.body)
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Answer:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[:-2]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    answer = Answer(int(status_line.split(" ")[1]), headers, [])
    if headers.get("transfer-encoding") == "chunked":
        await _read_chunks(reader, answer)
    elif "content-length" in headers:
        try:
            answer.parts.append(await reader.readexactly(int(headers["content-length"])))
        except asyncio.IncompleteReadError:
            answer.fault = "the body is shorter than its length"
    else:
        answer.fault = "the body has neither a length nor chunks"
    return answer


async def _read_chunks(reader: asyncio.StreamReader, answer: Answer) -> None:
    try:
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            answer.parts.append((await reader.readexactly(size + 2))[:-2])
        if await reader.readexactly(2) != b"\r\n":
            answer.fault = "the last chunk has fields or odd bytes behind it"
    except (asyncio.IncompleteReadError, ConnectionError):
        answer.fault = "the body ended without its last chunk"
