from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.transport.client import HttpServer, open_session
from tests.transport.calls import GOOD, Make, model_of
from tests.upstream import ScriptedUpstream


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(GOOD) as started:
        yield started


@pytest.fixture
def make(session: aiohttp.ClientSession, upstream: ScriptedUpstream) -> Make:
    def made(base_url: str | None = None, **changes: Any) -> HttpServer:
        return model_of(session, base_url or f"{upstream.url}/v1", **changes)

    return made
