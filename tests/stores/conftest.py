from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.ports.conversations import ConversationStore
from gateway.stores import MemoryStore, SqliteStore
from gateway.stores.leasing import LEASE_S
from gateway.stores.valkey import ValkeyStore
from tests.stores.samples import Clock
from tests.valkey import ValkeyProcess, valkey


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ValkeyProcess]:
    with valkey() as running:
        yield running


@pytest.fixture
def server(shared_server: ValkeyProcess) -> ValkeyProcess:
    shared_server.say("FLUSHALL")
    return shared_server


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(
    kind: str, path: Path, clock: Clock, request: pytest.FixtureRequest
) -> AsyncIterator[ConversationStore]:
    async with opened_store(kind, path, request, clock=clock) as made:
        yield made


@pytest.fixture
async def brief(
    kind: str, path: Path, clock: Clock, request: pytest.FixtureRequest
) -> AsyncIterator[ConversationStore]:
    # Its leases are over soon.
    async with opened_store(kind, path, request, clock=clock, lease_s=1.0) as made:
        yield made


@asynccontextmanager
async def opened_store(
    kind: str,
    path: Path,
    request: pytest.FixtureRequest,
    *,
    clock: Clock,
    lease_s: float = LEASE_S,
) -> AsyncIterator[ConversationStore]:
    made: ConversationStore
    if kind == "memory":
        made = MemoryStore(retention_days=90, clock=clock, lease_s=lease_s)
    elif kind == "sqlite":
        made = SqliteStore(path, retention_days=90, clock=clock, lease_s=lease_s)
    else:
        url = request.getfixturevalue("server").url
        made = ValkeyStore(url, retention_days=90, clock=clock, lease_s=lease_s)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
