"""More than a gateway can serve, and what becomes of it: `python -m tests.bench.load`.

One worker, SQLite, short replies, everything on this machine. First the capacity (32 clients in a
closed loop), then three times as many requests as that, one tenant that floods while nine behave,
500 connections at once, 200 long replies at once, and the probes all the while. Two minutes.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import uvloop

from tests.bench.rawhttp import Crowd, Ended, Upstream, serve
from tests.e2e.config import config, key_of, tenant, upstream
from tests.e2e.process import GatewayProcess
from tests.model_streams import openai_stream

_DELTAS: Final = tuple(f"word{number} " for number in range(5))
_TENANTS: Final = tuple(f"t{number}" for number in range(10))
_CLOSED: Final = 32
_numbers: Final = count()


@dataclass
class Seen:
    """What the clients of one run saw: seconds by status."""

    seconds: dict[int, list[float]] = field(default_factory=dict)

    def add(self, ended: Ended) -> None:
        """Counts one answer; a stream that ended with an error record counts as 0."""
        good = ended.status != 200 or b'"type":"done"' in ended.body
        self.seconds.setdefault(ended.status if good else 0, []).append(ended.seconds)

    @property
    def good(self) -> int:
        """Turns that ended well."""
        return len(self.seconds.get(200, []))

    def counts(self) -> dict[int, int]:
        """Answers by status."""
        return {status: len(seconds) for status, seconds in sorted(self.seconds.items())}

    def quantile_ms(self, share: float, *statuses: int) -> float:
        """Of the seconds of these statuses, in milliseconds; NaN of none."""
        all_of_them = sorted(s for status in statuses for s in self.seconds.get(status, []))
        if not all_of_them:
            return float("nan")
        return all_of_them[min(len(all_of_them) - 1, int(share * len(all_of_them)))] * 1000


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
        self._gateway = gateway
        self._crowd = Crowd(gateway.public.host, gateway.public.port)
        self._probes = Crowd(gateway.public.host, gateway.public.port)
        self._admin = Crowd(gateway.admin.host, gateway.admin.port)

    async def turn(self, seen: Seen, tenant_name: str = "t0") -> None:
        """One turn in a new conversation."""
        seen.add(await self._crowd.ask(_message(tenant_name)))

    async def closed_loop(self, clients: int, seconds: float) -> Seen:
        """So many clients, each with the next turn as soon as its last one ended."""
        seen = Seen()
        end = asyncio.get_running_loop().time() + seconds

        async def client() -> None:
            while asyncio.get_running_loop().time() < end:
                await self.turn(seen)

        await asyncio.gather(*(client() for _ in range(clients)))
        return seen

    async def open_loop(
        self, rates: Mapping[str, float], seconds: float
    ) -> tuple[dict[str, Seen], Seen]:
        """So many turns a second of each tenant, whatever becomes of them; and the probes."""
        seen = {name: Seen() for name in rates}
        probes = Seen()
        running: set[asyncio.Task[None]] = set()

        def start(work: Awaitable[None]) -> None:
            task = asyncio.ensure_future(work)
            running.add(task)
            task.add_done_callback(running.discard)

        async def probe() -> None:
            for crowd, path in ((self._probes, b"/livez"), (self._admin, b"/metrics")):
                ended = await crowd.ask(b"GET %s HTTP/1.1\r\nhost: gateway\r\n\r\n" % path)
                probes.seconds.setdefault(ended.status, []).append(ended.seconds)

        loop = asyncio.get_running_loop()
        began = loop.time()
        sent = dict.fromkeys(rates, 0)
        next_probe = began
        while (now := loop.time()) < began + seconds:
            for name, rate in rates.items():
                while sent[name] < (now - began) * rate:
                    sent[name] += 1
                    start(self.turn(seen[name], name))
            if now >= next_probe:
                next_probe = now + 0.25
                start(probe())
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
        for crowd in (self._crowd, self._probes, self._admin):
            crowd.close()


def _row(name: str, text: str) -> None:
    print(f"  {name:<34} {text}", flush=True)


async def _overload(rig: Rig, seconds: float) -> None:
    await rig.closed_loop(_CLOSED, 2)
    calm = await rig.closed_loop(_CLOSED, seconds / 2)
    capacity = calm.good / (seconds / 2)
    _row(
        "capacity, 32 clients", f"{capacity:.0f} turns/s, p99 {calm.quantile_ms(0.99, 200):.0f} ms"
    )
    seen, probes = await rig.open_loop({"t0": 3 * capacity}, seconds)
    flood = seen["t0"]
    goodput = flood.good / seconds
    _row("three times that, one tenant", f"{goodput:.0f} good/s = {goodput / capacity:.0%}")
    _row("", f"statuses {flood.counts()}, 200 p99 {flood.quantile_ms(0.99, 200):.0f} ms")
    _row("", f"refusals p50 {flood.quantile_ms(0.5, 503, 429):.0f} ms, "
             f"p99 {flood.quantile_ms(0.99, 503, 429):.0f} ms")  # fmt: skip
    _row("probes meanwhile", f"{probes.counts()}, p99 {probes.quantile_ms(0.99, 200):.0f} ms")
    await asyncio.sleep(1)
    after = await rig.closed_loop(_CLOSED, 3)
    _row("capacity afterwards", f"{after.good / 3:.0f} turns/s")
    share = capacity * 0.3 / 9
    rates = dict.fromkeys(_TENANTS[1:], share) | {"t0": 20 * share}
    alone, _ = await rig.open_loop(dict.fromkeys(_TENANTS[1:], share), seconds)
    crowded, _ = await rig.open_loop(rates, seconds)
    for label, result in (("nine tenants alone", alone), ("beside one that asks 20 x", crowded)):
        both = Seen()
        for name in _TENANTS[1:]:
            for status, times in result[name].seconds.items():
                both.seconds.setdefault(status, []).extend(times)
        _row(label, f"{both.counts()}, p50 {both.quantile_ms(0.5, 200):.0f} ms, "
                    f"p99 {both.quantile_ms(0.99, 200):.0f} ms")  # fmt: skip
    _row("the one", f"{crowded['t0'].counts()}")
    burst = await rig.burst(500)
    _row("500 connections at once", f"{burst.counts()}, p99 {burst.quantile_ms(0.99, 200):.0f} ms")


async def _long_replies(rig: Rig) -> None:
    streams = await rig.burst(201)
    _row("201 replies of a second, 200 places", f"{streams.counts()}")


async def _with_gateway(
    directory: Path, wait_s: float, places: int, run: Callable[[Rig], Awaitable[None]]
) -> None:
    body = b"".join(openai_stream(_DELTAS, usage=(5, 5)))
    reply = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%s"
        % (len(body), body)
    )
    server, port = await serve(reply, wait_s=wait_s)
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
        await _with_gateway(folder / "short", 0.0, 500, lambda rig: _overload(rig, seconds))
        await _with_gateway(folder / "long", 1.0, 200, _long_replies)
    causes = Counter({"upstream calls": Upstream.calls})
    _row("in all", ", ".join(f"{number} {name}" for name, number in causes.items()))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a window")
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(main(chosen.seconds)))
