import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.config import tenant
from tests.e2e.routes import WIDGET
from tests.e2e.world import World, open_world
from tests.valkey import valkey

TENANTS = {
    "few": tenant("few", requests_per_minute=10),
    "single": tenant("single", concurrent_turns=1),
}


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with valkey() as running:
        yield running.url


async def burst(worlds: list[World], times: int) -> Counter[int]:
    asked = (worlds[n % len(worlds)].ask(WIDGET, "Hello", tenant="few") for n in range(times))
    return Counter([answer.status for answer in await asyncio.gather(*asked)])


async def one_after_the_other(worlds: list[World], times: int) -> Counter[int]:
    """A client that begins its next turn as soon as it has read the end of the last one."""
    statuses: Counter[int] = Counter()
    for number in range(times):
        answer = await worlds[number % len(worlds)].ask(WIDGET, "Hello", tenant="single")
        statuses[answer.status] += 1
    return statuses


async def check(worlds: list[World]) -> None:
    for world in worlds:
        world.echo(60)
    assert await burst(worlds, 50) == {200: 10, 429: 40}
    assert await one_after_the_other(worlds, 30) == {200: 30}


async def test_four_workers_of_one_machine_admit_what_one_would(tmp_path: Path) -> None:
    async with open_world(
        tmp_path, store="sqlite:gateway.db", tenants=TENANTS, server={"workers": 4}
    ) as world:
        await check([world])


async def test_two_gateways_on_one_valkey_admit_what_one_would(
    tmp_path: Path, server_url: str
) -> None:
    async with (
        open_world(tmp_path / "one", store=server_url, tenants=TENANTS) as one,
        open_world(tmp_path / "two", store=server_url, tenants=TENANTS) as two,
    ):
        await check([one, two])
