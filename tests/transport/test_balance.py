import asyncio
from collections import Counter

import pytest

from gateway.errors import (
    Cancelled,
    ContextLength,
    Deadline,
    GatewayError,
    Internal,
    ReplyTooLong,
    Truncated,
    UpstreamDenied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.messages import Prompt, PromptMessage
from gateway.ports.turns import ModelStream
from gateway.transport.balance import BalancedModel, Call, ModelFacts
from gateway.transport.breaker import FAILURES, Target

PROMPT = Prompt("m", "", (PromptMessage("user", "hi"),))
BOUND = 10.0


class Server:
    """Notes how long each call had left to connect."""

    def __init__(self) -> None:
        self.connect_s: list[float] = []

    async def call(
        self, prompt: Prompt, *, headers: tuple[tuple[str, str], ...], connect_s: float
    ) -> ModelStream:
        self.connect_s.append(connect_s)
        raise UpstreamUnavailable


class Notes:
    """Everything that the metrics were told."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def call_began(self, upstream: str, target: str, *, retry: bool) -> None:
        self.seen.append(("began", upstream, target, retry))

    def call_ended(self, upstream: str, target: str, error: GatewayError | None) -> None:
        self.seen.append(("ended", upstream, target, error and error.kind))

    def ejected(self, upstream: str, target: str, *, out: bool) -> None:
        self.seen.append(("ejected", upstream, target, out))

    def no_place(self, upstream: str) -> None:
        self.seen.append(("full", upstream))

    def retry_refused(self, upstream: str) -> None:
        self.seen.append(("refused", upstream))

    def of(self, word: str) -> list[tuple[object, ...]]:
        return [entry[1:] for entry in self.seen if entry[0] == word]


class Upstream:
    """A model over fake servers `a`, `b` …"""

    def __init__(self, targets: int = 1, *, cap: int = 100, connect_s: float = 10.0) -> None:
        self.notes = Notes()
        self.servers = [Server() for _ in range(targets)]
        facts = ModelFacts("main", "openai", "m", connect_s, 60.0, 30.0, 300.0)
        named = [
            (Target(name, 1), server)
            for name, server in zip("abcdefgh"[:targets], self.servers, strict=True)
        ]
        self.model = BalancedModel(facts, named, max_in_flight=cap, recorder=self.notes)

    async def fail(self, error: GatewayError, times: int = FAILURES) -> None:
        for _ in range(times):
            (await self.model.place()).end(error)

    async def trip(self) -> None:
        """Ejects every target."""
        for _ in range(len(self.servers)):
            await self.fail(UpstreamError())
        assert self.model.balancer.none_ready(asyncio.get_running_loop().time())


async def test_calls_are_spread_and_told() -> None:
    main = Upstream(2)
    calls = [await main.model.place() for _ in range(4)]
    assert Counter(call.target for call in calls) == {"a": 2, "b": 2}
    for call in calls:
        call.end(None)
        call.end(None)  # once is enough
    assert main.notes.of("began") == [("main", call.target, False) for call in calls]
    assert main.notes.of("ended") == [("main", call.target, None) for call in calls]
    assert main.model.balancer.in_flight == 0


# Waiting for a place.


async def test_a_call_waits_for_a_place_in_order() -> None:
    main = Upstream(cap=1)
    first = await main.model.place()
    order: list[int] = []

    async def wait(number: int) -> Call:
        call = await main.model.place()
        order.append(number)
        return call

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0.01)
    assert order == []
    first.end(None)
    for task in waiting:
        (await task).end(None)
    assert order == [0, 1, 2]
    assert main.model.balancer.in_flight == 0


async def test_a_call_that_finds_no_place_in_time_is_unavailable() -> None:
    main = Upstream(cap=1, connect_s=0.05)
    held = await main.model.place()
    async with asyncio.timeout(BOUND):
        with pytest.raises(UpstreamUnavailable) as caught:
            await main.model.place()
    assert caught.value.retry_after == 1
    assert main.notes.of("full") == [("main",)]
    held.end(None)
    (await main.model.place()).end(None)


async def test_a_call_does_not_wait_for_so_long_that_it_could_not_connect() -> None:
    main = Upstream(cap=1, connect_s=0.2)
    held = await main.model.place()
    asyncio.get_running_loop().call_later(0.15, held.end, None)
    with pytest.raises(UpstreamUnavailable):
        await main.model.place()
    assert main.notes.of("full") == [("main",)]


async def test_connecting_gets_what_waiting_left() -> None:
    main = Upstream(cap=1, connect_s=5.0)
    held = await main.model.place()
    waiting = asyncio.create_task(main.model.place())
    await asyncio.sleep(0.1)
    held.end(None)
    call = await waiting
    with pytest.raises(UpstreamUnavailable):
        await call.send(PROMPT)
    assert 2.5 <= main.servers[0].connect_s[0] < 4.95


async def test_who_stops_waiting_leaves_no_gap() -> None:
    main = Upstream(cap=1)
    held = await main.model.place()
    waiting = [asyncio.create_task(main.model.place()) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting[0].cancel()
    held.end(None)
    waiting[1].cancel()  # it was its turn
    async with asyncio.timeout(BOUND):
        (await waiting[2]).end(None)
    await asyncio.gather(*waiting[:2], return_exceptions=True)
    assert main.model.balancer.in_flight == 0
    (await main.model.place()).end(None)


async def test_many_callers_never_pass_the_cap() -> None:
    main = Upstream(2, cap=3)
    most = 0

    async def turn() -> None:
        nonlocal most
        call = await main.model.place()
        most = max(most, main.model.balancer.in_flight)
        await asyncio.sleep(0.001)
        call.end(None)

    async with asyncio.timeout(BOUND):
        await asyncio.gather(*(turn() for _ in range(100)))
    assert most == 6
    assert main.model.balancer.in_flight == 0


# What speaks against a server.


@pytest.mark.parametrize(
    "error",
    [UpstreamError(), UpstreamUnavailable(), UpstreamTimeout(), UpstreamDenied(), Truncated(),
     UpstreamProtocolError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_a_servers_own_failures_eject_it(error: GatewayError) -> None:
    main = Upstream()
    await main.fail(error)
    assert main.notes.of("ejected") == [("main", "a", True)]


@pytest.mark.parametrize(
    "error",
    [Cancelled(), Deadline(), Internal(), UpstreamRateLimited(), UpstreamRejected(),
     ContextLength(), ReplyTooLong()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_what_is_not_the_servers_fault_does_not(error: GatewayError) -> None:
    main = Upstream()
    await main.fail(error, 20)
    assert main.notes.of("ejected") == []


async def test_a_lone_server_is_called_though_it_fails_unless_there_is_another_upstream() -> None:
    main = Upstream()
    await main.trip()
    with pytest.raises(UpstreamUnavailable):
        await main.model.place(last_resort=False)
    call = await main.model.place()
    call.began()
    assert main.notes.of("ejected") == [("main", "a", True), ("main", "a", False)]
    call.end(None)
    (await main.model.place(last_resort=False)).end(None)


async def test_a_server_that_asked_for_a_rest_gets_it_if_there_is_another_upstream() -> None:
    main = Upstream()
    (await main.model.place(last_resort=False)).end(UpstreamRateLimited(retry_after=5))
    with pytest.raises(UpstreamUnavailable):
        await main.model.place(last_resort=False)
    (await main.model.place()).end(None)


# Trying again.


async def test_another_server_is_tried_after_a_failure() -> None:
    main = Upstream(3)
    call = await main.model.place()
    tried = [call.target]
    while True:
        call.end(UpstreamUnavailable())
        again = await call.again(UpstreamUnavailable())
        if again is None:
            break
        call = again
        tried.append(call.target)
    assert sorted(tried) == ["a", "b", "c"]
    assert [entry[2] for entry in main.notes.of("began")] == [False, True, True]


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UpstreamUnavailable(), True),
        (UpstreamUnavailable(retry_after=0.1), True),
        (UpstreamUnavailable(retry_after=5), False),
        (UpstreamRateLimited(retry_after=5), False),
        (UpstreamDenied(), False),
        (UpstreamRejected(), False),
        (ContextLength(), False),
    ],
    ids=repr,
)
async def test_a_lone_server_is_tried_again_only_where_that_may_help(
    error: GatewayError, again: bool
) -> None:
    main = Upstream()
    call = await main.model.place()
    call.end(error)
    second = await call.again(error)
    assert (second is not None) == again
    if second is not None:
        second.end(error)
        assert await second.again(error) is None


async def test_a_spent_budget_allows_no_retry() -> None:
    main = Upstream(2)
    granted = []
    for _ in range(5):
        call = await main.model.place()
        call.end(Truncated())
        granted.append(await call.again(Truncated()))
        (await main.model.place()).end(None)  # nobody is ejected
    held = [call for call in granted if call is not None]
    assert len(held) == 3
    assert main.notes.of("refused") == [("main",)] * 2
    held[0].end(None)
    call = await main.model.place()
    call.end(Truncated())
    assert await call.again(Truncated()) is not None


async def test_a_retry_that_finds_no_place_or_is_cancelled_gives_the_budget_back() -> None:
    main = Upstream(cap=1, connect_s=0.05)
    for _ in range(4):
        call = await main.model.place()
        call.end(UpstreamRateLimited())
        other = await main.model.place()
        async with asyncio.timeout(BOUND):
            assert await call.again(UpstreamRateLimited()) is None
            trying = asyncio.create_task(call.again(UpstreamRateLimited()))
            await asyncio.sleep(0)
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)
        other.end(None)
    assert main.notes.of("refused") == []


async def test_in_an_outage_nothing_is_sent_twice() -> None:
    main = Upstream(3)
    await main.trip()
    call = await main.model.place()
    call.end(UpstreamUnavailable())
    assert await call.again(UpstreamUnavailable()) is None
