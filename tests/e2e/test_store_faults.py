import asyncio
import random
import sqlite3
import time
from pathlib import Path

import pytest

from gateway.readers import Reader
from tests.e2e.routes import HYPONEMA, STREAMING, Chat
from tests.e2e.wire import whole
from tests.e2e.world import World, open_world, read
from tests.valkey import valkey

# What a refusal may take, several times over.
PATIENCE_S = 20.0


async def refused(world: World, chat: Chat, conversation: str, why: str) -> None:
    began = time.monotonic()
    answer = await world.ask(chat, "Hello", conversation=conversation)
    assert answer.status == 503, answer.text
    assert answer.header("retry-after")
    assert time.monotonic() - began < PATIENCE_S
    record = await world.gateway.record_of(answer.header("x-request-id"))
    assert record["kind"] == "store_unavailable"
    assert why in str(record["why"])


def one_bad_end(reader: Reader) -> bool:
    return len(reader.terminals) == 1 and reader.terminals != ["ok"]


async def test_a_server_that_goes_in_the_middle_of_a_turn_and_comes_back(tmp_path: Path) -> None:
    with valkey(keep=True) as server:
        async with open_world(tmp_path, store=server.url) as world:
            conversations = {chat: await world.conversation(chat) for chat in STREAMING}
            gates = []
            exchanges = []
            connections = []
            for chat, conversation in conversations.items():
                gates.append(world.reply_in_two("First", ", second."))
                connection = await world.h1()
                connections.append(connection)
                exchanges.append(await connection.send(chat.request(conversation, "Hello")))
                await exchanges[-1].part()
            server.stop()
            for gate in gates:
                gate.set()
            for chat, exchange in zip(conversations, exchanges, strict=True):
                reader = read(chat, await whole(exchange))
                assert reader.text.startswith("First")
                assert one_bad_end(reader), chat.id
            for connection in connections:
                await connection.close()
            for chat, conversation in conversations.items():
                await refused(world, chat, conversation, "the store's server ")
            server.start()
            end = time.monotonic() + PATIENCE_S
            while True:
                world.forget_replies()
                world.reply("Back.")
                answer = await world.ask(HYPONEMA, "Hello", conversation="after")
                if answer.status == 200:
                    break
                assert (answer.status, time.monotonic() < end) == (503, True)
                await asyncio.sleep(0.1)
            outcomes = await world.gateway.by("chatgw_turns_total", "outcome")
            assert outcomes["store_unavailable"] == len(STREAMING)


async def test_a_silent_server_costs_a_turn_a_moment(tmp_path: Path) -> None:
    with valkey() as server:
        async with open_world(tmp_path, store=server.url) as world:
            with server.paused():
                for _ in range(4):
                    await refused(world, HYPONEMA, "c", "the store's server ")
                assert (await world.gateway.ask(world.gateway.admin, "/livez")).status == 200
            world.echo(100)
            end = time.monotonic() + PATIENCE_S
            while (await world.ask(HYPONEMA, "Hello", conversation="c2")).status != 200:
                assert time.monotonic() < end
                await asyncio.sleep(0.1)


async def test_a_locked_file_costs_a_turn_a_moment(tmp_path: Path) -> None:
    file = tmp_path / "gateway.db"
    async with open_world(tmp_path, store=f"sqlite:{file}") as world:
        world.reply("Hi.")
        await world.ask(HYPONEMA, "Hello", conversation="c")
        lock = sqlite3.connect(file, isolation_level=None)
        lock.execute("begin exclusive")
        await asyncio.gather(
            *(refused(world, chat, "c", "the store's file is locked") for chat in STREAMING[:3])
        )
        lock.execute("rollback")
        lock.close()
        world.reply("Back.")
        answer = await world.ask(HYPONEMA, "And now?", conversation="c")
        assert read(HYPONEMA, answer).text == "Back."


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_kill_under_load_loses_no_turn_that_was_acknowledged(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    file = tmp_path / "gateway.db"
    acknowledged: dict[str, list[str]] = {}
    async with open_world(tmp_path, store=f"sqlite:{file}") as world:
        world.echo(10_000)

        async def client(name: str) -> None:
            said = acknowledged.setdefault(name, [])
            for number in range(1000):
                answer = await world.ask(HYPONEMA, f"{name} {number}", conversation=name)
                if not answer.ended or read(HYPONEMA, answer).terminals != ["ok"]:
                    return
                said.append(f"{name} {number}")

        clients = [asyncio.create_task(client(f"c{number}")) for number in range(6)]
        await asyncio.sleep(chance.uniform(0.5, 1.2))
        await world.gateway.kill()
        await asyncio.gather(*clients, return_exceptions=True)
        with sqlite3.connect(file) as database:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        await world.gateway.start()
        assert sum(map(len, acknowledged.values())) > 6
        for name, said in acknowledged.items():
            history = stored(file, name)
            assert [role for role, _ in history] == ["user", "assistant"] * (len(history) // 2)
            asked = [text for role, text in history if role == "user"]
            assert asked[: len(said)] == said
            assert len(asked) <= len(said) + 1
            for (_, question), (_, reply) in zip(history[0::2], history[1::2], strict=True):
                assert reply == f"You said: {question}"


def stored(file: Path, conversation: str) -> list[tuple[str, str]]:
    with sqlite3.connect(file) as database:
        rows = database.execute(
            "select m.role, m.text from messages m join conversations c on "
            "m.conversation = c.number where c.id = ? order by m.seq",
            (conversation,),
        )
        return [(str(role), str(text)) for role, text in rows]
