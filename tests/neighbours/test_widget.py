import json

from gateway.messages import Headers, RequestHead
from gateway.neighbours.widget import WidgetHealth


async def nobody(tenant: str) -> None:
    raise AssertionError(tenant)


async def test_the_widgets_health_is_the_vendors_answer() -> None:
    head = RequestHead("GET", "/health", "", Headers())
    reply = await WidgetHealth().answer(head, b"", nobody)
    assert (reply.status, json.loads(reply.body)) == (200, {"status": "ok"})
