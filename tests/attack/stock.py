"""A plain ASGI application for stock Hypercorn: what one writes with the specification at hand.

It checks the key on the head and answers at once, reads the body to its end, and relays a model's
stream as the widget's lines. It relies on the server where ASGI says that it may: on `send` to
wait for a slow client and to raise for one that has gone (ASGI 2.4), on the connection's next
request to be served after an early answer, and on a stream to be ended when the application dies.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final

import aiohttp

from tests.attack.hooks import RAISES_AFTER, RAISES_BEFORE
from tests.e2e.config import key_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UPSTREAM: Final = "STOCK_UPSTREAM"
_BODY_BYTES: Final = 131_072
_CONVERSATION: Final = "0" * 32
_KEYS: Final = (key_of("acme", "widget"), key_of("good", "widget"))
_sessions: list[aiohttp.ClientSession] = []


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """One ASGI scope."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    elif scope["method"] == "POST" and scope["path"] == "/chat":
        await _chat(scope, receive, send)
    elif scope["path"] in {"/health", "/readyz", "/livez"}:
        await _whole(send, 200, {"status": "ok"})
    else:
        await _whole(send, 404, {"error": "Not found"})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            _sessions.append(aiohttp.ClientSession())
        else:
            await _sessions[0].close()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _chat(scope: Message, receive: Receive, send: Send) -> None:
    fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    key = fields.get("x-api-key", "")
    if key == key_of("limited", "widget"):
        await _whole(send, 429, {"error": "Too many requests"}, (b"retry-after", b"60"))
        return
    if key not in _KEYS:
        await _whole(send, 401, {"error": "Unauthorized"})
        return
    if int(fields.get("content-length", "0")) > _BODY_BYTES:
        await _whole(send, 413, {"error": "Invalid request payload"})
        return
    body = await _body(receive)
    try:
        asked = json.loads(body)
        session, text = str(asked["sessionId"]), str(asked["message"])
    except (ValueError, TypeError, KeyError):
        await _whole(send, 400, {"error": "Invalid request payload"})
        return
    if session.startswith(RAISES_BEFORE):
        raise RuntimeError("planted")
    await _relay(session, text, send)


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= _BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


async def _relay(session: str, text: str, send: Send) -> None:
    said = ""
    async for delta in _deltas(text):
        if not said:
            head = [(b"content-type", b"application/x-ndjson")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await _line(send, {"type": "start", "conversationId": _CONVERSATION})
        said += delta
        await _line(send, {"type": "token", "token": delta})
    if session.startswith(RAISES_AFTER):
        raise RuntimeError("planted")
    await _line(send, {"type": "done", "message": said.strip(), "conversationId": _CONVERSATION})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _deltas(text: str) -> AsyncIterator[str]:
    url = f"{os.environ[UPSTREAM]}/v1/chat/completions"
    ask = {"messages": [{"role": "user", "content": text}], "stream": True}
    async with _sessions[0].post(url, json=ask) as answer:
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                if delta := choice["delta"].get("content"):
                    yield delta


async def _line(send: Send, record: dict[str, object]) -> None:
    data = json.dumps(record).encode() + b"\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _whole(send: Send, status: int, body: dict[str, str], *more: tuple[bytes, bytes]) -> None:
    data = json.dumps(body).encode()
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": data, "more_body": False})
