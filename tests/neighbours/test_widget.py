import json

from gateway.messages import Headers, RequestHead
from gateway.neighbours.widget import WidgetHealth


async def test_the_widgets_health_is_the_vendors_answer() -> None:
    reply = await WidgetHealth().answer(RequestHead("GET", "/health", "", Headers()), b"")
    assert (reply.status, json.loads(reply.body)) == (200, {"status": "ok"})
