import asyncio
from collections import Counter
from pathlib import Path

from tests.bench.rawhttp import Crowd, Ended, serve
from tests.e2e.config import config, tenant, upstream
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import HYPERLEAP, HYPONEMA, WIDGET, Chat
from tests.model_streams import openai_stream

CHATS = (HYPONEMA, HYPERLEAP, WIDGET)
A_SECOND = {"flood": 2500, "calm": 8}
# A machine that is held up must not let in so many at first that calls of the model wait in vain.
AT_ONCE = 400
FLOOD_S = 4.0


def message(chat: Chat, number: int, tenant_name: str) -> bytes:
    request = chat.request(f"{tenant_name}-{number}", "Hello", tenant=tenant_name)
    fields = [*request.headers, ("host", "gateway"), ("content-length", str(len(request.body)))]
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields)]
    return "\r\n".join([*lines, "", ""]).encode() + request.body


async def test_a_flood_is_refused_cheaply_and_counted_and_nobody_else_is(tmp_path: Path) -> None:
    body = b"".join(openai_stream(("one ", "two"), usage=(5, 2)))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    server, port = await serve([head % len(body) + body])
    values = config(
        {"main": upstream(f"http://127.0.0.1:{port}/v1", max_in_flight=1000)},
        tenants={name: tenant(name) for name in ("flood", "calm")},
        limits={"turns_in_flight": 1000},
    )
    gateway = await GatewayProcess(values, tmp_path).start()
    crowd = Crowd(gateway.public.host, gateway.public.port)
    seen: dict[str, Counter[int]] = {"flood": Counter(), "calm": Counter()}
    refused: list[Ended] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = dict.fromkeys(A_SECOND, 0)

    async def ask(number: int, name: str) -> None:
        ended = await crowd.ask(message(CHATS[number % len(CHATS)], number, name))
        seen[name][ended.status] += 1
        if ended.status == 503:
            refused.append(ended)

    try:
        open_now: set[asyncio.Task[None]] = set()
        while (past := loop.time() - began) < FLOOD_S:
            for name, rate in A_SECOND.items():
                for _ in range(int(rate * past) - sent[name]):
                    sent[name] += 1
                    if name == "flood" and len(open_now) >= AT_ONCE:
                        continue
                    task = asyncio.create_task(ask(sent[name], name))
                    open_now.add(task)
                    task.add_done_callback(open_now.discard)
            await asyncio.sleep(0.005)
        await asyncio.gather(*open_now)
        lasted_s = loop.time() - began
        turns, shed = seen["flood"][200] + seen["calm"][200], seen["flood"][503]
        assert set(seen["calm"]) == {200}
        assert set(seen["flood"]) == {200, 503}
        assert all(b"retry-after: " in ended.body for ended in refused)
        await gateway.eventually("chatgw_turns_total", turns)
        await gateway.eventually("chatgw_refused_total", shed, kind="overloaded")
        await gateway.logged("shedding")
        lines = [line for line in gateway.records if line.get("kind") == "overloaded"]
        assert 1 <= len(lines) <= 12 * lasted_s * 2
        assert {line["tenant"] for line in lines} == {"flood"}
    finally:
        crowd.close()
        await gateway.stop()
        server.close()
