import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from gateway.messages import ConversationKey, Message
from gateway.stores.sqlite import SqliteStore
from tests.e2e.config import config, tenant
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import HYPONEMA, STREAMING
from tests.e2e.world import World, read
from tests.stores.rig import add, make

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(170)]

# By the gateway's estimate 1,500 tokens and so sent; by the model's count more than it can read.
UNDERRATED = "語学校日本東京都生活" * 200
# By either count more than the model can read.
TOO_LONG = "語" * 8000


async def remember(file: Path, conversation: str) -> None:
    """An exchange that the model refuses to read."""
    store = SqliteStore(file, retention_days=90)
    await store.open()
    key = ConversationKey("acme", "hyponema", conversation)
    await make(store, key)
    asked = Message("q", "user", UNDERRATED, time.time())
    await add(store, key, (asked, Message("a", "assistant", "Yes.", time.time())))
    await store.close()


async def test_the_embedded_model_answers_turn_after_turn_and_survives_an_overflow(
    tmp_path: Path,
) -> None:
    file = tmp_path / "gateway.db"
    agents = {"default": {"upstreams": ["local"], "max_tokens": 12, "temperature": 0}}
    settings = config(
        {"local": {"protocol": "embedded"}},
        agents=agents,
        tenants={"acme": tenant("acme")},
        store=f"sqlite:{file}",
    )
    await remember(file, "long")
    gateway = await GatewayProcess(settings, tmp_path).start()
    world = World(gateway, None)
    try:
        for chat in STREAMING:
            conversation = await world.conversation(chat)
            for text in ("Name a colour.", "Another one?", "And a third?"):
                answer = await world.ask(chat, text, conversation=conversation)
                assert answer.status == 200, (chat.id, answer.text)
                reader = read(chat, answer)
                assert reader.terminals == ["ok"], chat.id
                assert reader.text.strip(), chat.id
        for text in ("Are you still there?", "Really?"):
            answer = await world.ask(HYPONEMA, text, conversation="long")
            assert read(HYPONEMA, answer).terminals == ["ok"]
        answer = await world.ask(HYPONEMA, TOO_LONG, conversation="long")
        assert answer.status == 413
        answer = await world.ask(HYPONEMA, "And now?", conversation="long")
        assert read(HYPONEMA, answer).terminals == ["ok"]
        await dies_and_comes_back(world)
        refused = {"error_type": "_OTHER"}
        name = "gen_ai_client_operation_duration_seconds_count"
        assert await gateway.total(name, **refused) >= 2  # the model did refuse, unseen
    finally:
        await gateway.stop()


async def dies_and_comes_back(world: World) -> None:
    """A model that dies fails turns in their own shape until it was started again."""
    gateway = world.gateway
    (model,) = (
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if b"model_server" in _command(folder) and os.getpgid(int(folder.name)) == gateway.pid
    )
    os.kill(model, signal.SIGKILL)
    await gateway.logged("embedded_model_died")
    answer = await world.ask(HYPONEMA, "Are you there?")
    assert answer.status == 503
    assert answer.json()["error_kind"] == "upstream_unavailable"  # type: ignore[index]  # a mapping
    async with asyncio.timeout(60):
        while answer.status != 200:
            await asyncio.sleep(0.2)
            answer = await world.ask(HYPONEMA, "And now?")
    assert read(HYPONEMA, answer).terminals == ["ok"]
    assert len(await gateway.logged("embedded_model_restarted")) == 1


def _command(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""
