"""A request's body on its way from the connection to the application."""

import asyncio
from collections.abc import Callable

from hypercorn.typing import ASGIReceiveEvent


class Inbox:
    """What has come of a body and was not read yet; its length is in bytes.

    `uploaded` turns true when the request has come whole. `taken` is called with the size of what
    the application has read.
    """

    def __init__(self, taken: Callable[[int], None]) -> None:
        self.uploaded = False
        self._taken = taken
        self._data = bytearray()
        self._closed = False
        self._told_end = False
        self._reader: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes, *, end: bool) -> None:
        """Some of the body came in; `end` says that it was the last of it."""
        if not self._closed:
            self._data += data
        self.uploaded = end
        if data or end:
            self._wake()

    def close(self) -> int:
        """The client is gone or the answer has ended: how many bytes nobody will read."""
        unread = len(self._data)
        self._data.clear()
        self._closed = True
        self._wake()
        return unread

    async def receive(self) -> ASGIReceiveEvent:
        """ASGI's `receive`."""
        while True:
            if self._closed:
                return {"type": "http.disconnect"}
            if self._data or (self.uploaded and not self._told_end):
                return self._next_part()
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    def _next_part(self) -> ASGIReceiveEvent:
        data = bytes(self._data)
        self._data.clear()
        self._told_end = self.uploaded
        if data:
            self._taken(len(data))
        return {"type": "http.request", "body": data, "more_body": not self.uploaded}

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
