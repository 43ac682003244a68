from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.ports import ConversationStore
from gateway.stores import MemoryStore, SqliteStore
from tests.stores.samples import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, path: Path, clock: Clock
) -> AsyncIterator[ConversationStore]:
    made: ConversationStore
    if request.param == "memory":
        made = MemoryStore(retention_days=90, clock=clock)
    else:
        made = SqliteStore(path, retention_days=90, clock=clock)
    await made.open()
    yield made
    await made.close()
