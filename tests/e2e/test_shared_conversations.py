import asyncio
import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.process import GatewayProcess
from tests.e2e.routes import HYPONEMA, MAIN, WIDGET
from tests.e2e.wire import Answer, Request, whole
from tests.e2e.world import World, open_world, read

LEASE_S = 6.0


class Pair:
    """The world's gateway, and another process with the same configuration."""

    def __init__(self, world: World, other: World) -> None:
        self.first = world
        self.second = other

    async def send(self, request: Request) -> Answer:
        return await self.second.send(request)


@asynccontextmanager
async def open_pair(directory: Path, store: str) -> AsyncIterator[Pair]:
    async with open_world(directory, store=store) as world:
        (directory / "twin").mkdir()
        same = json.loads(world.gateway.file.read_text())
        twin = await GatewayProcess(same, directory / "twin").start()
        try:
            yield Pair(world, World(twin, None))
        finally:
            await twin.stop()


@pytest.fixture(params=["sqlite", "valkey"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    sqlite = request.param == "sqlite"
    store = f"sqlite:{tmp_path / 'gateway.db'}" if sqlite else request.getfixturevalue("valkey_url")
    async with open_pair(tmp_path, store) as opened:
        yield opened


async def test_a_busy_conversation_is_busy_everywhere(pair: Pair) -> None:
    for chat in [chat for chat in MAIN if chat is not WIDGET]:
        conversation = await pair.first.conversation(chat)
        gate = pair.first.reply_in_two("First", ", second.")
        async with pair.first.sending(chat.request(conversation, "Hello")) as exchange:
            await exchange.part()
            assert (await pair.send(chat.request(conversation, "Me too"))).status == 409
            gate.set()
            await whole(exchange)
        pair.first.reply("Now.")
        answer = await pair.send(chat.request(conversation, "And now?"))
        assert read(chat, answer).text == "Now."
        assert pair.first.last_messages() == [
            ("user", "Hello"),
            ("assistant", "First, second."),
            ("user", "And now?"),
        ]


async def test_on_the_widget_a_turn_elsewhere_is_waited_for(pair: Pair) -> None:
    name = str(uuid.uuid4())
    gate = pair.first.reply_in_two("First", ", second.")
    async with pair.first.sending(WIDGET.request(name, "Hello")) as exchange:
        await exchange.part()
        pair.first.reply("After you.")
        waiting = asyncio.create_task(pair.send(WIDGET.request(name, "Me too")))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        gate.set()
        await whole(exchange)
        assert read(WIDGET, await waiting).text == "After you."


async def test_two_hundred_turns_on_two_gateways_are_one_history(pair: Pair) -> None:
    conversation = str(uuid.uuid4())
    answered = 0
    statuses: Counter[int] = Counter()
    pair.first.echo(400)

    async def client(world: World, name: str) -> None:
        nonlocal answered
        for number in range(50):
            answer = await world.send(HYPONEMA.request(conversation, f"{name}{number}"))
            statuses[answer.status] += 1
            if answer.status == 200:
                answered += 1

    worlds = (pair.first, pair.second)
    await asyncio.gather(*(client(worlds[n % 2], "abcd"[n]) for n in range(4)))
    assert set(statuses) <= {200, 409}
    assert answered >= 2
    pair.first.forget_replies()
    pair.first.reply("Done.")
    await pair.first.send(HYPONEMA.request(conversation, "last"))
    *said, last = pair.first.last_messages()
    assert last == ("user", "last")
    assert [role for role, _ in said] == ["user", "assistant"] * (len(said) // 2)
    for (_, asked), (_, reply) in zip(said[0::2], said[1::2], strict=True):
        assert reply == f"You said: {asked}"


async def test_a_recorded_reply_is_given_everywhere(pair: Pair) -> None:
    for chat in MAIN:
        field = ("idempotency-key", str(uuid.uuid4()))
        conversation = await pair.first.conversation(chat)
        request = chat.request(conversation, "Hello").plus(field)
        pair.first.reply("Hi.")
        first = await pair.first.send(request)
        calls = pair.first.calls
        again = await pair.send(request)
        assert (again.status, again.body) == (200, first.body)
        changed = chat.request(conversation, "Something else").plus(field)
        assert (await pair.send(changed)).status == 409
        assert pair.first.calls == calls


@pytest.mark.parametrize("pair", ["sqlite"], indirect=True)
async def test_a_worker_that_is_stopped_for_long_loses_its_turn(pair: Pair) -> None:
    name = str(uuid.uuid4())
    gate = pair.first.reply_in_two("First", ", second.")
    async with pair.first.sending(HYPONEMA.request(name, "Hello")) as exchange:
        await exchange.part()
        _signal(pair.first.gateway, signal.SIGSTOP)
        try:
            await asyncio.sleep(LEASE_S + 0.5)
            pair.first.reply("Mine now.")
            answer = await pair.send(HYPONEMA.request(name, "Me too"))
            assert read(HYPONEMA, answer).text == "Mine now."
        finally:
            _signal(pair.first.gateway, signal.SIGCONT)
        gate.set()
        zombie = read(HYPONEMA, await whole(exchange))
    assert (len(zombie.terminals), zombie.terminals[0] == "ok") == (1, False)
    pair.first.reply("Yes.")
    await pair.send(HYPONEMA.request(name, "Who was here?"))
    assert pair.first.last_messages()[:-1] == [("user", "Me too"), ("assistant", "Mine now.")]


@pytest.mark.parametrize("pair", ["valkey"], indirect=True)
async def test_a_killed_workers_conversation_is_free_after_its_lease(pair: Pair) -> None:
    name = str(uuid.uuid4())
    pair.first.reply_in_two("First", ", second.")
    async with pair.first.sending(HYPONEMA.request(name, "Hello")) as exchange:
        await exchange.part()
        await pair.first.gateway.kill()
        pair.first.reply("Mine now.")
        loop = asyncio.get_running_loop()
        killed = loop.time()
        while (answer := await pair.send(HYPONEMA.request(name, "Me too"))).status == 409:
            assert loop.time() - killed < LEASE_S + 5
            await asyncio.sleep(0.2)
    assert read(HYPONEMA, answer).text == "Mine now."


def _signal(gateway: GatewayProcess, number: signal.Signals) -> None:
    os.killpg(gateway.pid, number)
