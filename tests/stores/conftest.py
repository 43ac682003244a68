from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.ports import ConversationStore
from gateway.stores import MemoryStore, SqliteStore
from gateway.stores.leasing import LEASE_S
from tests.stores.samples import Clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(kind: str, path: Path, clock: Clock) -> AsyncIterator[ConversationStore]:
    async with opened_store(kind, path, clock=clock) as made:
        yield made


@pytest.fixture
async def brief(kind: str, path: Path, clock: Clock) -> AsyncIterator[ConversationStore]:
    # Its leases are over soon.
    async with opened_store(kind, path, clock=clock, lease_s=0.3) as made:
        yield made


@asynccontextmanager
async def opened_store(
    kind: str, path: Path, *, clock: Clock, lease_s: float = LEASE_S
) -> AsyncIterator[ConversationStore]:
    made: ConversationStore
    if kind == "memory":
        made = MemoryStore(retention_days=90, clock=clock, lease_s=lease_s)
    else:
        made = SqliteStore(path, retention_days=90, clock=clock, lease_s=lease_s)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
