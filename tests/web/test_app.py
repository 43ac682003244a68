import asyncio
import io
import json
from pathlib import Path

import pytest

from gateway.settings import load_settings
from gateway.telemetry import logs
from gateway.transport.asgi import Message
from gateway.wiring import build
from tests.e2e.config import config, upstream


@pytest.mark.parametrize(
    ("method", "path", "lines"), [("GET", "/livez", 0), ("POST", "/v1/chat/stream", 1)]
)
async def test_a_client_that_takes_nothing_gets_no_log_line_of_its_own(
    tmp_path: Path, method: str, path: str, lines: int
) -> None:
    file = tmp_path / "gateway.yaml"
    values = config({"main": upstream("http://127.0.0.1:9/v1")}, limits={"send_s": 0.05})
    file.write_text(json.dumps(values))

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(_: Message) -> None:
        await receive()

    scope = {"type": "http", "method": method, "path": path, "headers": [], "http_version": "2"}
    stream = io.StringIO()
    logs.configure(stream)
    try:
        async with build(load_settings(file, {}, {}).settings) as built:
            await asyncio.wait_for(built.app(scope, receive, send), 5)
    finally:
        logs.shutdown()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in told] == [("request", "info")] * lines
    assert all(line["why"] == "the client took nothing of its answer" for line in told)
