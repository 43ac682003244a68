"""The admin listener's application: metrics, probes and version, nothing else."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gateway.messages import Reply
from gateway.replies import json_reply
from gateway.transport.asgi import Exchange, ExchangeLimits, Message, Receive, Send
from gateway.web.app import OperatorRoutes, answer_lifespan
from gateway.web.request import request_id

_log: Final = structlog.get_logger("gateway.web")
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
        else:
            await Exchange(scope, receive, send, _LIMITS).run(self._serve)

    async def _serve(self, exchange: Exchange) -> None:
        head = exchange.head
        stamp = (("x-request-id", request_id(head, self._new_request_id)),)
        exchange.stamp = lambda: stamp
        try:
            reply = await self._operators.answer(
                head.method, head.path, head.query, head.headers.get("accept")
            )
        except Exception:  # noqa: BLE001 - whatever it was, the operator gets an answer
            _log.exception("request_fault")
            reply = _FAULT
        try:
            async with asyncio.timeout(_SEND_S):
                await exchange.reply(reply or _NOT_FOUND)
        except TimeoutError:
            return  # a scraper that does not read gets no more


_NOT_FOUND: Final[Reply] = json_reply(404, {"error": "Not found"})
_FAULT: Final[Reply] = json_reply(500, {"error": "Internal server error"})
