"""Python's clients: requests with the loop of the widget's page, and httpx over HTTP/2."""

import asyncio
import json

import httpx
import requests

from tests.ci.table import Table
from tests.clients.cases import CASES, Case
from tests.e2e.routes import STREAMING, WIDGET, Chat
from tests.e2e.wire import Answer, Request
from tests.e2e.world import World

CLOCK_S = 20.0


async def check(world: World, table: Table) -> None:
    """Every case with requests; every streaming route with httpx."""
    for case in CASES:
        case.prepare(world)
        request = WIDGET.request(await world.conversation(WIDGET), "Hello there")
        url = f"http://{world.gateway.public}{request.path}"
        seen = await asyncio.to_thread(_widget_page, url, request)
        good = seen == _expected(case)
        table.row(f"requests {requests.__version__}", case.name, good=good, saw=seen)
    for chat in STREAMING:
        for case in CASES:
            await _httpx(world, table, chat, case)


def _expected(case: Case) -> tuple[int, str, str | None]:
    if case.fault is None:
        return (200, case.text, None)
    return (200 if case.text else 500, case.text, "Internal server error")


def _widget_page(url: str, request: Request) -> tuple[int, str, str | None]:
    """The Python example of the widget's documentation: status, words, error."""
    response = requests.post(
        url, headers=dict(request.headers), data=request.body, stream=True, timeout=CLOCK_S
    )
    if response.status_code != 200:
        return (response.status_code, "", response.json()["error"])
    words, error = "", None
    for line in response.iter_lines():
        if line:
            event = json.loads(line)
            if event["type"] == "token":
                words += event["token"]
            elif event["type"] == "done":
                assert event["message"] == words.strip()
            elif event["type"] == "error":
                error = event["error"]
    return (200, words, error)


async def _httpx(world: World, table: Table, chat: Chat, case: Case) -> None:
    request = chat.request(await world.conversation(chat), "Hello there")
    case.prepare(world)
    answer = Answer()
    async with (
        httpx.AsyncClient(http1=False, http2=True, timeout=CLOCK_S, trust_env=False) as client,
        client.stream(
            request.method,
            f"http://{world.gateway.public}{request.path}",
            headers=list(request.headers),
            content=request.body,
        ) as response,
    ):
        answer.status = response.status_code
        version = response.http_version
        answer.parts = [part async for part in response.aiter_raw()]
    good = version == "HTTP/2" and case.is_seen(chat, answer)
    client_name = f"httpx {httpx.__version__} HTTP/2 {chat.dialect}"
    table.row(client_name, f"{case.name}, {chat.framing}", good=good, saw=answer)
