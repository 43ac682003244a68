import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.messages import ConversationKey, Once, Recorded
from gateway.stores.valkey import VERSION, ValkeyStore
from gateway.stores.valkey_scripts import VERSION_KEY
from gateway.stores.valkey_server import COMMAND_S, server_url
from tests.stores.rig import add, begin, begun, history, make
from tests.stores.samples import KEY, Clock, exchange, expected_ids, ids
from tests.valkey import DelayingProxy, ValkeyProcess, free_port, valkey

ONCE = Once("a" * 64, "1" * 64)
# What a refusal may take, ten times over.
PATIENCE_S = 10 * COMMAND_S


@asynccontextmanager
async def opened(url: str, clock: Clock | None = None) -> AsyncIterator[ValkeyStore]:
    store = ValkeyStore(url, retention_days=90, clock=clock or time.time)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def fresh() -> ConversationKey:
    # What a silent server was asked it does once it wakes up.
    return ConversationKey("acme", "widget", uuid.uuid4().hex)


async def refused(store: ValkeyStore, key: ConversationKey | None = None) -> str:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await begin(store, key or fresh())
    assert time.monotonic() - began < PATIENCE_S
    return str(caught.value)


async def recovered(store: ValkeyStore) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            turn = await begun(store, fresh())
        except StoreUnavailable:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        else:
            return await store.commit(turn.lease, exchange(9))


def keys(server: ValkeyProcess) -> list[str]:
    lines = server.say("KEYS", "*").decode().split("\r\n")
    return [line for line in lines[2::2] if line]


@pytest.fixture(scope="module")
def own_server() -> Iterator[ValkeyProcess]:
    with valkey(keep=True) as server:
        yield server


class TestServer:
    @pytest.mark.parametrize(
        ("url", "known"),
        [
            ("valkey://h:1/0", "redis://h:1/0"),
            ("valkeys://u:p@h", "rediss://u:p@h"),
            ("redis://h", "redis://h"),
            ("rediss://h", "rediss://h"),
        ],
    )
    def test_every_scheme_is_known_to_the_client(self, url: str, known: str) -> None:
        assert server_url(url) == known

    async def test_a_server_that_is_not_there_is_told_soon(self) -> None:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await ValkeyStore("valkey://127.0.0.1:9/0", retention_days=90).open()
        assert time.monotonic() - began < PATIENCE_S

    async def test_a_password_opens_the_server_and_stays_secret(self) -> None:
        with valkey(password="sk-secret") as server:
            async with opened(server.url) as store:
                await begun(store)
            wrong = server.url.replace("sk-secret", "sk-wrong")
            with pytest.raises(StoreUnavailable, match="refuses the credentials") as caught:
                await ValkeyStore(wrong, retention_days=90).open()
            assert "sk-" not in str(caught.value)
            assert caught.value.__cause__ is None

    @pytest.mark.parametrize(
        ("found", "text"),
        [(str(VERSION + 1), "newer release"), ("theirs", "something else"), ("-1", "something")],
    )
    async def test_data_of_another_release_or_program_is_left_alone(
        self, server: ValkeyProcess, found: str, text: str
    ) -> None:
        server.say("SET", VERSION_KEY, found)
        with pytest.raises(StoreUnavailable, match=text):
            await ValkeyStore(server.url, retention_days=90).open()
        assert keys(server) == [VERSION_KEY]
        assert found.encode() in server.say("GET", VERSION_KEY)

    async def test_a_cluster_is_refused(self) -> None:
        with valkey("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
            for slots in ((), ("CLUSTER", "ADDSLOTSRANGE", "0", "16383")):
                if slots:
                    server.say(*slots)
                with pytest.raises(StoreUnavailable, match="is a cluster"):
                    await ValkeyStore(server.url, retention_days=90).open()

    async def test_a_user_who_may_run_no_scripts_is_refused(self, server: ValkeyProcess) -> None:
        server.say("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-@scripting")
        url = server.url.replace("//", "//reader:secret@")
        with pytest.raises(StoreUnavailable, match="forbids its user"):
            await ValkeyStore(url, retention_days=90).open()
        assert keys(server) == []

    async def test_a_server_that_forgot_its_scripts_is_told_them_again(
        self, server: ValkeyProcess
    ) -> None:
        async with opened(server.url) as store:
            await store.commit((await begun(store)).lease, exchange(1))
            server.say("SCRIPT", "FLUSH")
            await store.commit((await begun(store)).lease, exchange(2))
            assert await history(store) == expected_ids(range(1, 3))

    async def test_connections_that_the_server_closed_are_opened_again(
        self, server: ValkeyProcess
    ) -> None:
        async with opened(server.url) as store:
            for number in range(5):
                turn = await begun(store)
                server.say("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await store.commit(turn.lease, exchange(number))
            assert await history(store) == expected_ids(range(5))


class TestKeys:
    async def test_every_key_starts_with_its_tenant_and_expires(
        self, server: ValkeyProcess
    ) -> None:
        async with opened(server.url) as store:
            for tenant in ("acme", "globex"):
                key = ConversationKey(tenant, "helper", "c:1")
                await store.create(key, owner="email:a:b@example.com", subject="s")
                once = Once(tenant * 8, "1" * 64)
                turn = await begun(store, key, identity="email:a:b@example.com", once=once)
                await store.commit(turn.lease, exchange(1), record=b"reply")
                await begun(store, key, identity="email:a:b@example.com")
        found = keys(server)
        own = {name for name in found if name.startswith("chat-gateway:")}
        assert own == {f"chat-gateway:{name}" for name in ("version", "number", "all")}
        rest = set(found) - own
        assert {name.split(":")[0] for name in rest} == {"acme", "globex"}
        kinds = {re.sub(r":(helper:)?(\w)(:.*|$)", r":\2", name) for name in rest}
        assert {kind.split(":")[1] for kind in kinds} == set("cmlkpiur")
        for name in rest:
            left = int(server.say("PTTL", name)[1:])
            assert 0 < left <= (90 * 86_400 + 1) * 1000, name

    async def test_a_deleted_conversation_leaves_no_key(self, server: ValkeyProcess) -> None:
        async with opened(server.url) as store:
            turn = await begun(store, once=ONCE)
            await store.commit(turn.lease, exchange(1), record=b"reply")
            await begun(store)
            await store.delete(KEY)
        assert {name for name in keys(server) if not name.startswith("chat-gateway:")} <= {"acme:r"}
        assert b":0\r" in server.say("ZCARD", "chat-gateway:all")

    async def test_what_expired_leaves_the_lists(self, server: ValkeyProcess, clock: Clock) -> None:
        async with opened(server.url, clock) as store:
            for number in range(40):
                await store.create(
                    ConversationKey("acme", "widget", f"old{number}"), owner=None, subject=None
                )
            clock.now += 91 * 86_400
            for number in range(40):  # the server, whose clock is another one, forgets them too
                server.say("DEL", f"acme:widget:c:old{number}")
            for number in range(200):
                await make(store, ConversationKey("acme", "widget", f"new{number}"))
            page = await store.recent("acme", "widget", owner=None, limit=1000)
            assert len(page.conversations) == 200
            assert b":200\r" in server.say("ZCARD", "acme:widget:i:n")
            listed = int(server.say("ZCARD", "chat-gateway:all")[1:])
            assert 200 <= listed < 230
            assert len((await store.scan(limit=1000)).conversations) == 200
            assert b":200\r" in server.say("ZCARD", "chat-gateway:all")

    @pytest.mark.parametrize("scope", [None, ONCE], ids=["without a key", "with a key"])
    async def test_a_turn_costs_the_same_in_a_long_conversation(
        self, server: ValkeyProcess, scope: Once | None
    ) -> None:
        async with opened(server.url) as store:
            costs = []
            for length in (10, 10_000):
                key = ConversationKey("acme", "widget", f"c{length}")
                await make(store, key)
                for first in range(0, length // 2, 500):
                    some = range(first, min(first + 500, length // 2))
                    await add(store, key, [entry for n in some for entry in exchange(n)])
                once = scope._replace(scope=f"{length:064d}") if scope else None
                before = calls(server)
                turn = await store.begin(key, identity=None, create=True, messages=10, once=once)
                assert not isinstance(turn, Recorded)
                assert len(turn.conversation.messages) == 10
                await store.commit(turn.lease, exchange(0), record=b"r" if once else None)
                costs.append(calls(server) - before)
            assert costs[0] == costs[1]


def calls(server: ValkeyProcess) -> int:
    stats = server.say("INFO", "commandstats").decode()
    counted = re.findall(r"cmdstat_(\w+).*?:calls=(\d+)", stats)
    return sum(int(count) for name, count in counted if name != "info")


class TestFaults:
    async def test_a_server_that_loads_its_data_is_waited_for(self) -> None:
        slowly = ("--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024")
        with valkey("--rdbcompression", "no") as server:
            server.say("DEBUG", "POPULATE", "300", "x", "2000")
            server.say("SAVE")
            async with opened(server.url) as store:
                server.stop()
                server.start(*slowly, loading=True)
                assert "still loading" in await refused(store)
                with pytest.raises(StoreUnavailable, match="still loading"):
                    await ValkeyStore(server.url, retention_days=90).open()
                await recovered(store)

    async def test_what_an_evicting_server_left_does_not_come_back(
        self, server: ValkeyProcess
    ) -> None:
        async with opened(server.url) as store:
            await store.commit((await begun(store)).lease, exchange(1))
            server.say("DEL", "acme:widget:c:c1")
            assert (await begun(store)).conversation.messages == ()
            assert await history(store) == []

    async def test_a_server_that_goes_and_comes_back(self, own_server: ValkeyProcess) -> None:
        server = own_server
        async with opened(server.url) as store:
            key = ConversationKey("acme", "widget", "kept")
            await store.commit((await begun(store, key)).lease, exchange(1))
            turn = await begun(store, key)
            server.stop()
            for _ in range(5):
                await refused(store)
            with pytest.raises(StoreUnavailable):
                await store.commit(turn.lease, exchange(2))
            server.start()
            await recovered(store)
            # The file is written once a second: what was acknowledged longer ago is there.
            found = await make(store, key)
            assert ids(found.messages) in ([], expected_ids(range(1, 2)))

    async def test_a_server_that_is_silent_is_given_up_soon_and_then_at_once(
        self, own_server: ValkeyProcess
    ) -> None:
        async with opened(own_server.url) as store:
            await recovered(store)
            with own_server.paused():
                said = [await refused(store) for _ in range(3)]
                assert all("does not answer" in text for text in said)
                began = time.monotonic()
                results = await asyncio.gather(
                    *(begin(store, fresh()) for _ in range(200)), return_exceptions=True
                )
                assert all(isinstance(result, StoreUnavailable) for result in results)
                assert f"a moment ago {said[0]}" in {str(result) for result in results}
                assert time.monotonic() - began < PATIENCE_S
            await recovered(store)

    async def test_a_silent_server_does_not_stop_the_process(
        self, own_server: ValkeyProcess
    ) -> None:
        async with opened(own_server.url) as store:
            with own_server.paused():
                waiting = [asyncio.create_task(begin(store, fresh())) for _ in range(100)]
                worst = 0.0
                for _ in range(50):
                    began = time.monotonic()
                    await asyncio.sleep(0.005)
                    worst = max(worst, time.monotonic() - began)
                await asyncio.gather(*waiting, return_exceptions=True)
            assert worst < COMMAND_S

    async def test_a_slow_server_only_takes_longer(self, own_server: ValkeyProcess) -> None:
        async with opened(own_server.url) as store:
            own_server.say("CLIENT", "PAUSE", "200", "ALL")
            await recovered(store)

    async def test_a_full_server_takes_nothing_and_still_reads(
        self, own_server: ValkeyProcess
    ) -> None:
        async with opened(own_server.url) as store:
            key = ConversationKey("acme", "widget", "full")
            turn = await begun(store, key)
            own_server.say("CONFIG", "SET", "maxmemory", "1")
            try:
                for _ in range(5):
                    with pytest.raises(StoreUnavailable, match="out of memory"):
                        await store.commit(turn.lease, exchange(1))
                found = await store.history(key, limit=9)
                assert found.messages == ()
            finally:
                own_server.say("CONFIG", "SET", "maxmemory", "0")
            await store.commit(turn.lease, exchange(1))
            assert await history(store, key) == ["q1", "a1"]

    async def test_a_server_that_became_a_replica_takes_nothing(
        self, own_server: ValkeyProcess
    ) -> None:
        async with opened(own_server.url) as store:
            own_server.say("REPLICAOF", "127.0.0.1", "9")
            try:
                assert "read-only" in await refused(store)
            finally:
                own_server.say("REPLICAOF", "NO", "ONE")
            await recovered(store)

    async def test_another_programs_value_is_refused_and_kept(self, server: ValkeyProcess) -> None:
        async with opened(server.url) as store:
            server.say("SET", "acme:widget:c:c1", "theirs")
            assert "refused a command" in await refused(store, KEY)
            assert b"theirs" in server.say("GET", "acme:widget:c:c1")


class TestCancelling:
    async def test_a_cancelled_step_happened_wholly_or_not_and_answers_nobody_else(
        self, server: ValkeyProcess
    ) -> None:
        async with DelayingProxy(server.port) as proxy, opened(proxy.url) as store:
            for number in range(6):
                await fill(store, f"mine{number}", number)
            proxy.delay_s = 0.004
            for moment in range(24):
                await abandon(store, moment, proxy.delay_s / 4)
                readers = (reads(store, f"mine{number}", number) for number in range(6))
                await asyncio.gather(*readers)
            proxy.delay_s = 0
            found = await history(store, ConversationKey("acme", "widget", "theirs"))
            assert found[0::2] == [entry.replace("a", "q") for entry in found[1::2]]
            assert len(found) == len(set(found))


def mine(name: str) -> ConversationKey:
    return ConversationKey("globex", "widget", name)


async def fill(store: ValkeyStore, name: str, number: int) -> None:
    await store.create(mine(name), owner=None, subject=name)
    await add(store, mine(name), exchange(number))


async def reads(store: ValkeyStore, name: str, number: int) -> None:
    found = await store.load(mine(name), messages=9)
    assert (found.subject, ids(found.messages)) == (name, [f"q{number}", f"a{number}"])


async def abandon(store: ValkeyStore, moment: int, step_s: float) -> None:
    async def turn() -> None:
        theirs = await begun(store, ConversationKey("acme", "widget", "theirs"))
        await store.commit(theirs.lease, exchange(moment))

    task = asyncio.create_task(turn())
    await asyncio.sleep(moment * step_s)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        assert isinstance(task.exception(), Conflict | NotFound | None)
