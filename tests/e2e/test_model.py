from pathlib import Path

import pytest

from tests.e2e.config import config, tenant
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import HYPONEMA, STREAMING
from tests.e2e.world import World, read

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(170)]

FILLER = "The quick brown fox jumps over the lazy dog near the old river bank. " * 34


@pytest.fixture(scope="module")
def embedded() -> dict[str, object]:
    agents = {"default": {"upstreams": ["local"], "max_tokens": 12, "temperature": 0}}
    upstreams = {"local": {"protocol": "embedded"}}
    return config(upstreams, agents=agents, tenants={"acme": tenant("acme")})


async def test_the_embedded_model_talks_on_until_its_context_has_overflowed(
    embedded: dict[str, object], tmp_path: Path
) -> None:
    # A long turn is about 540 tokens, the model's context 2048: the fourth does not fit any more.
    gateway = await GatewayProcess(embedded, tmp_path).start()
    world = World(gateway, None)
    try:
        for chat in STREAMING:
            turns = [FILLER] * 4 if chat is HYPONEMA else ["Name a colour.", "Another one?"]
            conversation = await world.conversation(chat)
            for number, text in enumerate(turns):
                answer = await world.ask(chat, f"{number}: {text}", conversation=conversation)
                assert answer.status == 200, (chat.id, number, answer.text)
                reader = read(chat, answer)
                assert reader.terminals == ["ok"], (chat.id, number)
                assert reader.text.strip(), (chat.id, number)
        answer = await world.ask(HYPONEMA, "語" * 8000)
        assert answer.status == 413  # alone it is more than the model can read
        answer = await world.ask(HYPONEMA, "Are you still there?")
        assert read(HYPONEMA, answer).terminals == ["ok"]
    finally:
        await gateway.stop()
