from pathlib import Path

import pytest

from tests.e2e.config import config, tenant
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import HYPONEMA, STREAMING
from tests.e2e.world import World, read

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(170)]

# About 1200 tokens of the model's 2048: the second such message pushes the first one out.
LONG = "語学校日本東京都生活" * 60


@pytest.fixture(scope="module")
def embedded() -> dict[str, object]:
    agents = {"default": {"upstreams": ["local"], "max_tokens": 12, "temperature": 0}}
    upstreams = {"local": {"protocol": "embedded"}}
    return config(upstreams, agents=agents, tenants={"acme": tenant("acme")})


async def test_the_embedded_model_talks_on_until_its_context_has_overflowed(
    embedded: dict[str, object], tmp_path: Path
) -> None:
    # The dialects take turns and say the same, so the model has read it all for the one before.
    gateway = await GatewayProcess(embedded, tmp_path).start()
    world = World(gateway, None)
    try:
        conversations = [(chat, await world.conversation(chat)) for chat in STREAMING]
        for question in (f"1 {LONG}", f"2 {LONG}", "And now?"):
            for chat, conversation in conversations:
                answer = await world.ask(chat, question, conversation=conversation)
                assert answer.status == 200, (chat.id, question[:9], answer.text)
                reader = read(chat, answer)
                assert reader.terminals == ["ok"], (chat.id, question[:9])
                assert reader.text.strip(), (chat.id, question[:9])
        answer = await world.ask(HYPONEMA, "語" * 8000)
        assert answer.status == 413  # alone it is more than the model can read
        answer = await world.ask(HYPONEMA, "Are you still there?")
        assert read(HYPONEMA, answer).terminals == ["ok"]
    finally:
        await gateway.stop()
