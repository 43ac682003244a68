import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from gateway.access.claims import FULL_AGAIN_S, SLOT_S, Claim, Ledger, Slot, Take
from gateway.stores.ledger import MemoryLedger
from gateway.stores.sqlite import SqliteStore
from gateway.stores.sqlite_ledger import SqliteLedger
from gateway.stores.valkey_ledger import ValkeyLedger
from gateway.stores.valkey_server import ValkeyServer
from tests.valkey import ValkeyProcess


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """Two ledgers over one state where it can be shared, twice the same one where it cannot."""

    def __init__(self, clock: Clock, one: Ledger, other: Ledger) -> None:
        self.clock = clock
        self.one = one
        self.other = other


@pytest.fixture(params=["memory", "sqlite", "valkey"])
async def rig(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Rig]:
    clock = Clock()
    if request.param == "memory":
        ledger = MemoryLedger(clock=clock)
        yield Rig(clock, ledger, ledger)
        return
    if request.param == "valkey":
        servers = [ValkeyServer(request.getfixturevalue("server").url) for _ in range(2)]
        yield Rig(clock, *(ValkeyLedger(server, clock=clock) for server in servers))
        for server in servers:
            await server.close()
        return
    first, second = SqliteStore(path, retention_days=None), SqliteStore(path, retention_days=None)
    await first.open()
    await second.open()
    try:
        yield Rig(
            clock,
            SqliteLedger(first.write, clock=clock),
            SqliteLedger(second.write, clock=clock),
        )
    finally:
        await first.close()
        await second.close()


_numbers = count()


def request(name: str = "acme", size: int = 10, amount: float = 1) -> Claim:
    return Claim(f"request-{next(_numbers)}", (Take("requests_per_minute", name, size, amount),))


def turn(holder: str, most: int = 2) -> Claim:
    return Claim(holder, (), (Slot("concurrent_turns", "acme", most),))


async def admitted(ledgers: tuple[Ledger, ...], claim: Claim, tries: int) -> int:
    claims = [replace(claim, holder=f"try-{next(_numbers)}") for _ in range(tries)]
    asked = (ledgers[index % len(ledgers)].reserve(it) for index, it in enumerate(claims))
    return (await asyncio.gather(*asked)).count(None)


async def test_a_burst_over_two_users_of_the_state_gets_one_bucket(rig: Rig) -> None:
    assert await admitted((rig.one, rig.other), request(), 50) == 10


async def test_a_bucket_refills_evenly(rig: Rig) -> None:
    await admitted((rig.one,), request(size=60), 60)
    rig.clock.now += 2
    assert await admitted((rig.other,), request(size=60), 9) == 2


async def test_what_is_short_is_told_with_the_wait(rig: Rig) -> None:
    await admitted((rig.one,), request(size=6), 6)
    rig.clock.now += 4
    short = await rig.other.reserve(request(size=6))
    assert short is not None
    assert (short.limit, round(short.wait_s, 6)) == ("requests_per_minute", 6.0)


async def test_a_refused_claim_takes_from_no_bucket(rig: Rig) -> None:
    await admitted((rig.one,), request("small", 1), 1)
    both = Claim("", (*request("large", 5).takes, *request("small", 1).takes))
    assert await admitted((rig.one,), both, 5) == 0
    assert await admitted((rig.one,), request("large", 5), 9) == 5


async def test_what_is_given_back_can_be_taken_again_but_never_overfills(rig: Rig) -> None:
    claim = request(amount=8)
    assert await rig.one.reserve(claim) is None
    await rig.other.settle(claim, claim.takes)
    await rig.other.settle(request(), claim.takes)
    assert await admitted((rig.one,), request(), 20) == 10


async def test_a_bucket_is_overdrawn_by_its_own_size_at_most(rig: Rig) -> None:
    claim = request(size=60)
    await rig.one.settle(claim, (claim.takes[0]._replace(amount=-1e9),))
    rig.clock.now += 60.9
    assert await admitted((rig.one,), claim, 1) == 0
    rig.clock.now += 0.2
    assert await admitted((rig.other,), claim, 1) == 1


async def test_slots_are_shared(rig: Rig) -> None:
    assert await rig.one.reserve(turn("a")) is None
    assert await rig.other.reserve(turn("b")) is None
    short = await rig.one.reserve(turn("c"))
    assert short is not None
    assert short.limit == "concurrent_turns"
    await rig.other.settle(turn("a"), ())
    assert await rig.one.reserve(turn("d")) is None


async def test_a_slot_given_back_twice_frees_one(rig: Rig) -> None:
    await rig.one.reserve(turn("a"))
    await rig.one.reserve(turn("b"))
    await rig.one.settle(turn("a"), ())
    await rig.one.settle(turn("a"), ())
    assert await rig.one.reserve(turn("c")) is None
    assert await rig.one.reserve(turn("d")) is not None


async def test_a_dead_holders_slot_is_free_in_time_and_a_renewed_one_is_not(rig: Rig) -> None:
    await rig.one.reserve(turn("dead"))
    await rig.one.reserve(turn("alive"))
    rig.clock.now += SLOT_S - 1
    await rig.one.renew((turn("alive"),))
    rig.clock.now += 1
    assert await rig.other.reserve(turn("next")) is None
    assert await rig.other.reserve(turn("one too many")) is not None


async def test_a_renewal_does_not_revive_a_slot_that_was_given_back(rig: Rig) -> None:
    await rig.one.reserve(turn("a", most=1))
    await rig.one.settle(turn("a", most=1), ())
    await rig.one.renew((turn("a", most=1),))
    assert await rig.one.reserve(turn("b", most=1)) is None


async def test_after_the_machine_began_anew_buckets_are_full_and_holders_dead(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, retention_days=None)
    await store.open()
    try:
        ledger = SqliteLedger(store.write, clock=clock)
        await admitted((ledger,), request(), 10)
        await ledger.reserve(turn("a", most=1))
        clock.now = 3.0
        assert await ledger.reserve(request()) is None
        assert await ledger.reserve(turn("b", most=1)) is None
    finally:
        await store.close()


async def test_a_step_that_is_sent_twice_counts_once(server: ValkeyProcess) -> None:
    connection = ValkeyServer(server.url)
    ledger = ValkeyLedger(connection)
    try:
        claim = request(size=2)
        assert [await ledger.reserve(claim) for _ in range(5)] == [None] * 5
        assert await admitted((ledger,), request(size=2), 3) == 1
        await ledger.settle(claim, claim.takes)
        await ledger.settle(claim, claim.takes)
        assert await admitted((ledger,), request(size=2), 3) == 1
    finally:
        await connection.close()


async def test_full_buckets_are_forgotten() -> None:
    clock = Clock()
    ledger = MemoryLedger(clock=clock)
    for number in range(1000):
        await ledger.reserve(request(f"visitor {number}"))
    clock.now += FULL_AGAIN_S + 1
    await ledger.reserve(request())
    assert len(ledger) == 1


async def test_full_buckets_leave_the_file(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, retention_days=None)
    await store.open()
    try:
        ledger = SqliteLedger(store.write, clock=clock)
        for number in range(0, 1200, 300):  # less at once than the writer lets wait
            visitors = (f"visitor {number + later}" for later in range(300))
            await asyncio.gather(*(ledger.reserve(request(visitor)) for visitor in visitors))
        clock.now += FULL_AGAIN_S
        for _ in range(3):  # as fast as a worker can make them
            clock.now += 1
            await ledger.reserve(request())
        left = await store.write(
            lambda connection: connection.execute("SELECT count(*) FROM limit_levels").fetchall()
        )
        assert left == [(1,)]
    finally:
        await store.close()


async def test_slots_of_dead_holders_leave_the_file_whatever_their_names(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, retention_days=None)
    await store.open()
    try:
        ledger = SqliteLedger(store.write, clock=clock)
        for number in range(5):
            visitor = Slot("concurrent_turns_per_client", f"visitor {number}", 1)
            await ledger.reserve(Claim(f"turn {number}", (), (visitor,)))
        clock.now += SLOT_S
        await ledger.reserve(turn("next"))
        left = await store.write(
            lambda connection: connection.execute("SELECT holder FROM limit_slots").fetchall()
        )
        assert left == [("next",)]
    finally:
        await store.close()
