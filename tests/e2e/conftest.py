"""Worlds, each for the tests of one module, and one for a test that stops its gateway."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.world import World, open_world
from tests.valkey import valkey


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """With generous clocks."""
    async with open_world(tmp_path_factory.mktemp("world")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_brief_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """With clocks that run out soon, yet in no pause of the machine, and room for short replies."""
    clocks = {"connect_s": 1, "first_token_s": 1.2, "idle_s": 2, "total_s": 10}
    async with open_world(
        tmp_path_factory.mktemp("brief"),
        clocks=clocks,
        turn_s=3,
        limits={"output_bytes": 200_000},
    ) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_restless_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """With a keep-alive after every short silence."""
    directory = tmp_path_factory.mktemp("restless")
    async with open_world(directory, limits={"stream_keep_alive_s": 0.15}) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_small_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """With room for one turn."""
    directory = tmp_path_factory.mktemp("small")
    async with open_world(directory, limits={"turns_in_flight": 1}) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def own_world(tmp_path: Path) -> AsyncIterator[World]:
    """One whose gateway the test may stop; it drains for a second."""
    async with open_world(tmp_path, server={"drain_s": 1}) as opened:
        yield opened


def _fresh(world: World) -> World:
    """A module's world without what an earlier test lined up."""
    world.forget_replies()
    return world


@pytest.fixture
def world(module_world: World) -> World:
    """The module's world with generous clocks."""
    return _fresh(module_world)


@pytest.fixture
def brief_world(module_brief_world: World) -> World:
    """The module's world with clocks that run out soon."""
    return _fresh(module_brief_world)


@pytest.fixture
def restless_world(module_restless_world: World) -> World:
    """The module's world with frequent keep-alives."""
    return _fresh(module_restless_world)


@pytest.fixture
def small_world(module_small_world: World) -> World:
    """The module's world with room for one turn."""
    return _fresh(module_small_world)


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A store that several gateways may share."""
    with valkey() as server:
        yield server.url
