"""The widget's `GET /health`: the vendor's own liveness answer, without a key.

Source: Open Chat Widget, backend `server.ts`.
"""

from gateway.messages import Reply, RequestHead
from gateway.ports import Admit, Route
from gateway.replies import json_reply


class WidgetHealth:
    """`{"status":"ok"}` while the event loop runs."""

    dialect = "widget"
    routes: tuple[Route, ...] = (Route("GET", "/health"),)

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """The whole answer."""
        return json_reply(200, {"status": "ok"})
