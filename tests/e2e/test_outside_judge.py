from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest
import pytest_asyncio
from llmock.pytest_plugin import LLMock
from llmock.testing import LLMockServer

from tests.e2e.config import config, upstream
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import MAIN, Chat
from tests.e2e.world import World, read

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What the model does, how the turn ends, and whether the judge's warnings count as well.
CASES: Final[dict[str, tuple[Callable[[LLMock], object], str, bool]]] = {
    "nothing": (lambda model: model, "ok", True),
    "429, wait a little": (lambda model: model.rate_limit(retry_after=0.3), "ok", True),
    "500 once": (lambda model: model.fail(500), "ok", True),
    "503 once": (lambda model: model.fail(503), "ok", True),
    "outage": (lambda model: model.outage(), "status", True),
    "400": (lambda model: model.fail(400), "status", True),
    "401": (lambda model: model.fail(401), "status", True),
    "404": (lambda model: model.fail(404), "status", True),
    "422": (lambda model: model.fail(422), "status", True),
    "breaks off before a word": (lambda model: model.disconnect(after_chunks=1), "ok", True),
    "ends before a word": (lambda model: model.truncate(after_chunks=1), "ok", True),
    "stalls": (lambda model: model.stall(after_chunks=3, seconds=5), "error", True),
    "slow": (lambda model: model.slow_first_token(0.3), "ok", True),
    "breaks off in its words": (lambda model: model.disconnect(after_chunks=4), "error", False),
    # Last: nothing is tried twice until the eight seconds are over.
    "429, wait long": (lambda model: model.rate_limit(retry_after=8), "status", False),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    llmock_server: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    clocks = {"first_token_s": 3, "idle_s": 1}
    settings = config({"main": upstream(llmock_server.base_url("openai"), **clocks)})
    process = await GatewayProcess(settings, tmp_path_factory.mktemp("judged")).start()
    yield World(process, None)
    await process.stop()


@pytest.mark.parametrize("chat", MAIN, ids=lambda chat: chat.dialect)
@pytest.mark.parametrize("case", CASES)
async def test_an_outside_judge_finds_no_fault_with_the_gateway_as_a_client(
    gateway: World, llmock: LLMock, chat: Chat, case: str
) -> None:
    arrange, end, strict = CASES[case]
    await gateway.ask(chat, "A good turn, after which nothing counts as an outage")
    llmock.reset()
    arrange(llmock)
    seen = await gateway.ask(chat, "Hello")
    if end == "status":
        assert seen.status >= 500
    else:
        assert read(chat, seen).terminals == [end]
    llmock.assert_resilient(strict=strict)
    assert llmock.requests
