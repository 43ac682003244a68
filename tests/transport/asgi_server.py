"""An ASGI server of which a test plays every message."""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.transport.asgi import Exchange, ExchangeLimits, Message

LIMITS = ExchangeLimits(body_bytes=100, body_s=0.2)
# For what happens at once.
BOUND_S = 20.0


class Server:
    """Plays the ASGI server: messages in when told, messages out recorded."""

    def __init__(self, **scope: object) -> None:
        self.scope: Message = {
            "type": "http",
            "method": "POST",
            "path": "/chat",
            "raw_path": b"/chat",
            "query_string": b"",
            "http_version": "1.1",
            "headers": [],
            "client": ("127.0.0.1", 1),
            **scope,
        }
        self.sent: list[Message] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self.parting = False
        self.failure: Exception | None = None
        self.receive_failure: Exception | None = None
        self.limits = LIMITS
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()

    def body(self, data: bytes, *, more: bool = False) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": data, "more_body": more})

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def serve(self, handler: Callable[[Exchange], Awaitable[None]]) -> None:
        async def send(message: Message) -> None:
            self.sent.append(message)
            if self.parting and message.get("more_body") is False:
                self.disconnect()
                await asyncio.sleep(0.05)
            await self.taking.wait()
            if self.failure is not None:
                raise self.failure

        async def receive() -> Message:
            if self.receive_failure is not None:
                raise self.receive_failure
            return await self._incoming.get()

        exchange = Exchange(self.scope, receive, send, self.limits)
        await exchange.run(handler)
