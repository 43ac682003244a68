"""The admin listener's application: metrics, probes and version, nothing else."""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.messages import Reply
from gateway.replies import json_reply
from gateway.transport.asgi import Exchange, ExchangeLimits, Message, Receive, Send
from gateway.web.app import OperatorRoutes, answer_lifespan

_LIMITS: Final = ExchangeLimits(body_bytes=1024, body_s=5)
_SEND_S: Final = 10.0


class AdminApp:
    """ASGI over the operators' routes."""

    def __init__(self, operators: OperatorRoutes, new_request_id: Callable[[], str]) -> None:
        self._operators = operators
        self._new_request_id = new_request_id

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI scope."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await Exchange(scope, receive, send, _LIMITS).run(self._serve)

    async def _serve(self, exchange: Exchange) -> None:
        head = exchange.head
        exchange.stamp = lambda: (("x-request-id", self._new_request_id()),)
        reply = await self._operators.answer(
            head.method, head.path, head.query, head.headers.get("accept")
        )
        try:
            async with asyncio.timeout(_SEND_S):
                await exchange.reply(reply or _NOT_FOUND)
        except TimeoutError:
            return  # a scraper that does not read gets no more


_NOT_FOUND: Final[Reply] = json_reply(404, {"error": "Not found"})
