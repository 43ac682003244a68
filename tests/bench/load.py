"""More than a gateway can serve, and what becomes of it: `python -m tests.bench.load`.

One worker, SQLite, everything on this machine. First the capacity (clients in a closed loop), then
three times as many requests as that, and what is left of the capacity after it; one tenant that
floods while nine behave; 500 connections at once. The probes are asked all the while. All that
twice: with replies that are streamed, as a model's are, and with short ones that come in one piece,
where a refusal costs a tenth of a turn. Then one HTTP/2 connection of 100 streams beside 100
connections of one, and replies of four seconds in all places, and some more. What ends after its
window is counted, but as too late. About five minutes.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import uvloop

from tests.bench.rawhttp import Crowd, Ended, Upstream, serve
from tests.e2e.config import config, key_of, tenant, upstream
from tests.e2e.http2 import H2
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import WIDGET
from tests.e2e.wire import whole
from tests.model_streams import openai_stream

_TENANTS: Final = tuple(f"t{number}" for number in range(10))
_PLACES: Final = 500
_LONG_S: Final = 4.0
_RETRY_AFTER_S: Final = 1.0
_numbers: Final = count()


@dataclass(frozen=True)
class Reply:
    """What the upstream answers, and with how many clients in a closed loop to look for the most
    turns a second."""

    deltas: int
    wait_s: float = 0.0
    gap_s: float = 0.0
    clients: tuple[int, ...] = (32,)

    def parts(self) -> list[bytes]:
        """An HTTP answer: a part a delta, or all in one piece if there is no gap."""
        words = tuple(f"word{number} " for number in range(self.deltas))
        events = openai_stream(words, usage=(5, self.deltas))
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
            % sum(map(len, events))
        )
        parts = [head + events[0], *events[1:]]
        return parts if self.gap_s else [b"".join(parts)]


_STREAMED: Final = Reply(deltas=50, gap_s=0.02, clients=(200, 300, 400))
_SHORT: Final = Reply(deltas=5)
_LONG: Final = Reply(deltas=5, wait_s=_LONG_S)


@dataclass
class Seen:
    """What the clients of one run saw: seconds by status, and the good turns that were in time."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    until: float = float("inf")
    good: int = 0

    def add(self, ended: Ended) -> None:
        """Counts one answer; a stream that ended with an error record counts as 0."""
        bad = ended.status == 200 and b'"type":"done"' not in ended.body
        status = 0 if bad else ended.status
        self.seconds.setdefault(status, []).append(ended.seconds)
        self.good += status == 200 and asyncio.get_running_loop().time() <= self.until

    def counts(self) -> dict[int, int]:
        """Answers by status."""
        return {status: len(seconds) for status, seconds in sorted(self.seconds.items())}

    def quantile_ms(self, share: float, *statuses: int) -> float:
        """Of the seconds of these statuses, in milliseconds; NaN of none."""
        all_of_them = sorted(s for status in statuses for s in self.seconds.get(status, []))
        if not all_of_them:
            return float("nan")
        return all_of_them[min(len(all_of_them) - 1, int(share * len(all_of_them)))] * 1000

    def times(self, *statuses: int) -> str:
        """The middle and the hundredth of these statuses, as text."""
        middle, last = self.quantile_ms(0.5, *statuses), self.quantile_ms(0.99, *statuses)
        return f"p50 {middle:.0f} ms, p99 {last:.0f} ms"

    def probe_times(self) -> str:
        """The middle of every answer, and the last."""
        last = max(max(seconds) for seconds in self.seconds.values()) * 1000
        middle = self.quantile_ms(0.5, *self.seconds)
        return f"{self.counts()}, p50 {middle:.0f} ms, last {last:.0f} ms"

    @classmethod
    def of(cls, parts: Iterable["Seen"]) -> "Seen":
        """All of them together."""
        both = cls()
        for part in parts:
            both.good += part.good
            for status, seconds in part.seconds.items():
                both.seconds.setdefault(status, []).extend(seconds)
        return both


def _message(tenant_name: str) -> bytes:
    body = b'{"sessionId":"s%d","message":"How are you?"}' % next(_numbers)
    return (
        b"POST /chat HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        b"x-api-key: %s\r\ncontent-length: %d\r\n\r\n%s"
        % (key_of(tenant_name, "widget").encode(), len(body), body)
    )


class Rig:
    """A gateway before an upstream, and its clients."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self._crowd = Crowd(gateway.public.host, gateway.public.port)
        public = Crowd(gateway.public.host, gateway.public.port)
        admin = Crowd(gateway.admin.host, gateway.admin.port)
        self._probes = {
            "/livez": (public, b"/livez"),
            "/livez, admin": (admin, b"/livez"),
            "/readyz, admin": (admin, b"/readyz"),
            "/metrics, admin": (admin, b"/metrics"),
        }

    async def turn(self, seen: Seen, tenant_name: str = "t0") -> int:
        """The status of one turn in a new conversation."""
        ended = await self._crowd.ask(_message(tenant_name))
        seen.add(ended)
        return ended.status

    async def closed_loop(self, clients: int, seconds: float) -> Seen:
        """So many clients, each with the next turn as soon as its last one ended, or when it may
        come again."""
        end = asyncio.get_running_loop().time() + seconds
        seen = Seen(until=end)

        async def client() -> None:
            while asyncio.get_running_loop().time() < end:
                if await self.turn(seen) == 503:
                    await asyncio.sleep(_RETRY_AFTER_S)

        await asyncio.gather(*(client() for _ in range(clients)))
        return seen

    async def open_loop(
        self, rates: Mapping[str, float], seconds: float
    ) -> tuple[dict[str, Seen], dict[str, Seen]]:
        """So many turns a second of each tenant, whatever becomes of them; and the probes."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        seen = {name: Seen(until=began + seconds) for name in rates}
        probes = {name: Seen() for name in self._probes}
        running: set[asyncio.Future[object]] = set()

        def start(work: Awaitable[object]) -> None:
            task = asyncio.ensure_future(work)
            running.add(task)
            task.add_done_callback(running.discard)

        async def probe(name: str) -> None:
            crowd, path = self._probes[name]
            ended = await crowd.ask(b"GET %s HTTP/1.1\r\nhost: gateway\r\n\r\n" % path)
            probes[name].seconds.setdefault(ended.status, []).append(ended.seconds)

        sent = dict.fromkeys(rates, 0)
        next_probe = began
        while (now := loop.time()) < began + seconds:
            for name, rate in rates.items():
                while sent[name] < (now - began) * rate:
                    sent[name] += 1
                    start(self.turn(seen[name], name))
            if now >= next_probe:
                next_probe = now + 0.25
                for name in self._probes:
                    start(probe(name))
            await asyncio.sleep(0.005)
        if running:
            await asyncio.wait(running, timeout=30)
        return seen, probes

    async def burst(self, connections: int) -> Seen:
        """As many clients at once, each on a connection of its own."""
        seen = Seen()
        await asyncio.gather(*(self.turn(seen) for _ in range(connections)))
        return seen

    def close(self) -> None:
        """Ends every connection."""
        for crowd in (self._crowd, *(crowd for crowd, _ in self._probes.values())):
            crowd.close()


def _row(name: str, text: str) -> None:
    print(f"  {name:<34} {text}", flush=True)


async def _capacity(rig: Rig, clients: Sequence[int], seconds: float) -> float:
    """The most good turns a second of any of so many clients."""
    await rig.closed_loop(clients[0], 2)
    best = 0.0
    for number in clients:
        calm = await rig.closed_loop(number, seconds)
        rate = calm.good / seconds
        _row(f"{number} clients in a closed loop", f"{rate:.0f} turns/s, {calm.times(200)}")
        best = max(best, rate)
    return best


async def _overload(rig: Rig, clients: Sequence[int], seconds: float) -> None:
    capacity = await _capacity(rig, clients, seconds)
    flood, probes = await rig.open_loop({"t0": 3 * capacity}, seconds)
    goodput = flood["t0"].good / seconds
    _row("three times the most, one tenant", f"{goodput:.0f} turns/s = {goodput / capacity:.0%}")
    _row("  answers", f"{flood['t0'].counts()}")
    _row("  good ones", flood["t0"].times(200))
    _row("  refusals", flood["t0"].times(503))
    for name, probe in probes.items():
        _row(f"  {name}", probe.probe_times())
    await asyncio.sleep(1)
    after, _ = await rig.open_loop({"t0": 0.8 * capacity}, seconds)
    _row("80 % of it, from a second later on", f"{after['t0'].counts()}, {after['t0'].times(200)}")
    await _fairness(rig, capacity, seconds)
    await asyncio.sleep(3)
    burst = await rig.burst(500)
    _row("500 connections at once", f"{burst.counts()}, {burst.times(200)}")


async def _fairness(rig: Rig, capacity: float, seconds: float) -> None:
    share = capacity * 0.3 / 9
    nine = dict.fromkeys(_TENANTS[1:], share)
    alone, _ = await rig.open_loop(nine, seconds)
    crowded, _ = await rig.open_loop(nine | {"t0": 20 * share}, seconds)
    flooded, _ = await rig.open_loop(nine | {"t0": 3 * capacity}, seconds)
    for label, result in (
        ("nine tenants alone", alone),
        ("  beside one that asks 20 times that", crowded),
        ("  beside one with 3 x the capacity", flooded),
    ):
        all_nine = Seen.of(result[name] for name in _TENANTS[1:])
        _row(label, f"{all_nine.counts()}, {all_nine.times(200)}")
    _row("  those two", f"{crowded['t0'].counts()}, {flooded['t0'].counts()}")


async def _streams(rig: Rig, seconds: float) -> None:
    """One connection of 100 streams, and beside it 100 connections of one stream."""
    address = rig.gateway.public
    turns = {"one": 0, "many": 0}
    end = asyncio.get_running_loop().time() + seconds

    async def client(connection: H2, kind: str) -> None:
        while asyncio.get_running_loop().time() < end:
            chat = WIDGET.request(f"s{next(_numbers)}", "How are you?", tenant="t0")
            answer = await whole(await connection.send(chat))
            turns[kind] += answer.status == 200 and answer.ended

    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(await H2.connect(address))
        many = [await stack.enter_async_context(await H2.connect(address)) for _ in range(100)]
        await asyncio.gather(
            *(client(one, "one") for _ in range(100)), *(client(each, "many") for each in many)
        )
    _row("100 streams of one connection", f"{turns['one']} turns")
    _row("  beside 100 connections of one", f"{turns['many']} turns")


async def _long_replies(rig: Rig) -> None:
    long = asyncio.create_task(rig.burst(200))
    await asyncio.sleep(_LONG_S / 2)
    more, others = Seen(), Seen()
    await rig.turn(more)
    await asyncio.gather(*(rig.turn(others, "t1") for _ in range(10)))
    _row("200 replies of 4 s, 200 places", f"{(await long).counts()}")
    _row("  one more of the same tenant", f"{more.counts()}, {more.times(503)}")
    _row("  ten of another tenant", f"{others.counts()}")


async def _with_gateway(
    directory: Path, reply: Reply, places: int, run: Callable[[Rig], Awaitable[None]]
) -> None:
    server, port = await serve(reply.parts(), wait_s=reply.wait_s, gap_s=reply.gap_s)
    settings = config(
        {"main": upstream(f"http://127.0.0.1:{port}/v1", max_in_flight=1000)},
        tenants={name: tenant(name) for name in _TENANTS},
        store="sqlite:gateway.db",
        limits={"turns_in_flight": places},
    )
    directory.mkdir()
    gateway = await GatewayProcess(settings, directory).start()
    rig = Rig(gateway)
    try:
        await run(rig)
    finally:
        rig.close()
        await gateway.stop()
        server.close()


async def main(seconds: float) -> int:
    """The exit status."""
    print(f"load: one worker; every window {seconds:g} s", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for name, reply in (
            (f"replies of {_STREAMED.deltas} deltas, one every 20 ms", _STREAMED),
            (f"replies of {_SHORT.deltas} deltas in one piece", _SHORT),
        ):
            print(name, flush=True)
            await _with_gateway(
                folder / f"{reply.deltas}",
                reply,
                _PLACES,
                partial(_overload, clients=reply.clients, seconds=seconds),
            )
        print("others", flush=True)
        await _with_gateway(folder / "h2", _SHORT, _PLACES, partial(_streams, seconds=seconds))
        await _with_gateway(folder / "long", _LONG, 200, _long_replies)
    _row("in all", f"{Upstream.calls} upstream calls")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a window")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main(chosen.seconds)))
