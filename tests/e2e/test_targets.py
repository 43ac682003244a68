import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.e2e.config import config, tenant, upstream
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import HYPONEMA, MAIN, STREAMING, WIDGET, Chat
from tests.e2e.wire import Answer
from tests.e2e.world import World, read
from tests.model_streams import openai_stream
from tests.upstream import Fin, Hang, Script, ScriptedUpstream, Sleep, answer, stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = stream(b"".join(openai_stream(["Fine"], usage=(1000, 100))))
DOWN = answer(503, {"error": {"message": "down"}})


@dataclass
class Fleet:
    """A gateway over two servers `a` and `b` of one upstream, and a third one that is `spare`.

    Its tenants are named after what their agents call: `pair`, `first_a` (a alone, then the spare
    one), `full` (an upstream of one place).
    """

    world: World
    a: ScriptedUpstream
    b: ScriptedUpstream
    spare: ScriptedUpstream

    async def ask(self, chat: Chat, tenant: str = "pair") -> Answer:
        return await self.world.ask(chat, "Hello", tenant=tenant)

    def play(self, a: Script, b: Script, spare: Script = GOOD) -> None:
        for server, script in ((self.a, a), (self.b, b), (self.spare, spare)):
            server.play(script)
            server.requests.clear()

    @property
    def calls(self) -> tuple[int, int, int]:
        return len(self.a.requests), len(self.b.requests), len(self.spare.requests)

    async def count(self, name: str, **labels: str) -> float:
        return await self.world.gateway.total(f"chatgw_upstream_{name}", **labels)


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        a, b, spare = [await stack.enter_async_context(ScriptedUpstream(GOOD)) for _ in range(3)]
        pair = upstream("", targets=[{"base_url": f"{it.url}/v1"} for it in (a, b)])
        del pair["base_url"]
        settings = config(
            {
                "pair": pair,
                "alone": upstream(f"{a.url}/v1"),
                "spare": upstream(f"{spare.url}/v1", model="spare"),
                "small": upstream(f"{spare.url}/v1", model="small", max_in_flight=1, connect_s=5),
            },
            agents={
                "pair": {"upstreams": ["pair"]},
                "first_a": {"upstreams": ["alone", "spare"]},
                "full": {"upstreams": ["small"]},
            },
            tenants={name: tenant(name, agent=name) for name in ("pair", "first_a", "full")},
            prices={"test-model": {"input": 2, "output": 10}},
        )
        gateway = await GatewayProcess(settings, tmp_path_factory.mktemp("fleet")).start()
        stack.push_async_callback(gateway.stop)
        yield Fleet(World(gateway, None), a, b, spare)


async def test_a_server_that_is_down_is_never_seen_by_a_client(fleet: Fleet) -> None:
    for failing in (DOWN, Script((Fin(),), framing="raw"), stream(Fin())):
        fleet.play(failing, GOOD)
        for chat in STREAMING:
            seen = await fleet.ask(chat)
            assert (seen.status, read(chat, seen).text) == (200, "Fine"), seen.text
    before = fleet.calls[0]
    for chat in MAIN:
        await fleet.ask(chat)
    assert fleet.calls[0] == before  # left out for half a minute
    turns, calls = 3 * len(STREAMING) + len(MAIN), sum(fleet.calls)
    await fleet.world.gateway.eventually("chatgw_turns_total", turns, outcome="ok")
    assert await fleet.count("ejected", target=fleet.a.url.removeprefix("http://") + "/v1") == 1
    assert await fleet.count("ejections_total") == 1
    assert await fleet.count("calls_total", outcome="ok") == turns
    retries = await fleet.count("retries_total", upstream="pair")
    assert retries == await fleet.count("calls_total") - turns
    assert calls <= turns
    assert await fleet.count("in_flight") == 0
    cost = await fleet.world.gateway.total("chatgw_cost_total")
    assert cost == pytest.approx(turns * 0.003)


async def test_in_a_storm_of_503_nobody_is_called_much_oftener_than_asked(fleet: Fleet) -> None:
    fleet.play(DOWN, DOWN)
    asked = 100
    for start in range(0, asked, 20):
        seen = await asyncio.gather(
            *(fleet.ask(MAIN[n % len(MAIN)]) for n in range(start, start + 20))
        )
        assert all(one.status in (500, 503) for one in seen)
    assert asked <= sum(fleet.calls) <= 1.2 * asked
    await fleet.world.gateway.eventually("chatgw_upstream_calls_total", sum(fleet.calls))
    fleet.play(GOOD, GOOD)
    seen = await asyncio.gather(*(fleet.ask(WIDGET) for _ in range(10)))
    assert all(one.status == 200 for one in seen)
    assert sum(fleet.calls) == 10


async def test_the_next_upstream_is_asked_and_then_at_once(fleet: Fleet) -> None:
    fleet.play(DOWN, GOOD)
    for _ in range(10):
        seen = await fleet.ask(WIDGET, "first_a")
        assert read(WIDGET, seen).text == "Fine"
    alone, _, spare = fleet.calls
    assert (alone, spare) == (5, 10)
    await fleet.world.gateway.eventually("chatgw_upstream_fallbacks_total", 10, upstream="alone")


async def test_a_call_waits_for_a_place_and_does_not_fail(fleet: Fleet) -> None:
    slow = stream(*(step for event in openai_stream(["Fine"]) for step in (event, Sleep(0.01))))
    fleet.play(GOOD, GOOD, slow)
    seen = await asyncio.gather(*(fleet.ask(WIDGET, "full") for _ in range(10)))
    assert [one.status for one in seen] == [200] * 10
    assert fleet.spare.connections <= 11
    assert await fleet.count("full_total") == 0


async def test_a_client_that_leaves_is_no_failure_of_the_server(fleet: Fleet) -> None:
    endless = stream(openai_stream(["Fine"])[1], Hang())
    fleet.play(endless, endless)
    delays = []
    for number in range(12):
        async with fleet.world.asking(MAIN[number % 4], "Hello", tenant="pair") as exchange:
            await exchange.head()
            await exchange.part()
            began = asyncio.get_running_loop().time()
            await exchange.vanish()
        requests = [*fleet.a.requests, *fleet.b.requests]
        assert len(requests) == number + 1
        async with asyncio.timeout(10):
            await asyncio.gather(*(seen.gone.wait() for seen in requests))
        delays.append(max(seen.gone_at or began for seen in requests) - began)
    assert sorted(delays)[len(delays) // 2] < 1.0  # 0.1 on an idle machine
    await fleet.world.gateway.eventually("chatgw_upstream_calls_total", 12, outcome="cancelled")
    assert await fleet.count("ejections_total") == 0


async def test_a_client_is_told_which_model_answers(fleet: Fleet) -> None:
    fleet.play(a=DOWN, b=GOOD)
    request = HYPONEMA.request("told", "Hello", tenant="first_a").plus(("idempotency-key", "told"))
    for _ in range(2):  # the second answer is the first one's record
        answer = await fleet.world.send(request)
        started = read(HYPONEMA, answer).records[0]
        assert isinstance(started, tuple)
        assert started[1]["model"] == "spare"
    assert fleet.calls[2] == 1
