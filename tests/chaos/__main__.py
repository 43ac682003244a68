"""`make chaos`: three model servers that fail at random, and 200 clients of all dialects.

Thirty seconds of random faults, then ten in which every server answers 503, then silence. Every
turn has to end in one terminal record or one status; what the clients saw, what the gateway
counted and what the servers saw have to be the same numbers; nothing may be left over. Prints a
table and exits with 1 if a line of it is bad. Loopback only; ends by itself within a minute.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from tests.chaos.processes import Usage, usage
from tests.e2e.config import config, tenant, upstream
from tests.e2e.process import GatewayProcess
from tests.e2e.refusals import words
from tests.e2e.routes import STREAMING, Chat
from tests.e2e.wire import Answer
from tests.e2e.world import World, read
from tests.model_streams import openai_chunk, openai_stream, sse
from tests.upstream import Fin, Hang, Reset, Script, ScriptedUpstream, Seen, Sleep, answer

TURNS_AT_ONCE: Final = 200
RANDOM_S: Final = 25.0
STORM_S: Final = 8.0
SEED: Final = 7
TEXTS: Final = ("Every ", "turn ", "ends ", "once.")

_GOOD: Final = openai_stream(TEXTS)
_ERROR: Final = {"error": {"message": "out of order", "type": "server_error"}}
# One connection a call: a second try on a connection that was found dead is no call of its own.
_FIELDS: Final = (("content-type", "text/event-stream"), ("connection", "close"))
_SPREAD: Final = tuple(step for event in _GOOD for step in (event, Sleep(0.02)))


def _script(*steps: object) -> Script:
    return Script(steps, headers=_FIELDS, keep=False)  # type: ignore[arg-type]  # steps


def _status(status: int) -> Script:
    return answer(status, _ERROR, headers=[("connection", "close")])


GOOD: Final = _script(*_SPREAD)
DOWN: Final = _status(503)
# What a server does, and how often in a hundred calls.
FAULTS: Final[tuple[tuple[int, Script], ...]] = (
    (70, GOOD),
    (5, DOWN),
    (3, _status(500)),
    (2, _status(429)),
    (3, Script((Fin(),), framing="raw")),
    (2, Script((Reset(),), framing="raw")),
    (3, _script(_GOOD[0], Fin())),
    (4, _script(*_SPREAD[:4], Reset())),
    (2, _script(*_SPREAD[:6])),
    (2, _script(*_SPREAD[:4], sse(_ERROR))),
    (2, _script(*_SPREAD[:4], Hang())),
    (1, _script(openai_chunk({"role": "assistant"}), Hang())),
    (1, _script(*_SPREAD[:-4], Hang())),
)


class Clients:
    """Turns of all dialects, and what came of them."""

    def __init__(self, world: World) -> None:
        self.ends: Counter[str] = Counter()
        self.bad: list[str] = []
        self._world = world
        self._turn = 0

    async def run(self, seconds: float) -> None:
        """Keeps `TURNS_AT_ONCE` turns going for that long."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._keep_asking(until) for _ in range(TURNS_AT_ONCE)))

    async def _keep_asking(self, until: float) -> None:
        while time.monotonic() < until:
            self._turn += 1
            chat = STREAMING[self._turn % len(STREAMING)]
            protocol = ("h1", "h2")[self._turn // len(STREAMING) % 2]
            try:
                end = self._judge(chat, await self._world.ask(chat, "Hello", protocol=protocol))
            except (AssertionError, TimeoutError, OSError, EOFError) as error:
                self.bad.append(f"{chat.id}: {type(error).__name__} {error}")
                continue
            self.ends[end] += 1
            if end == "overloaded":
                await asyncio.sleep(0.5)

    def _judge(self, chat: Chat, seen: Answer) -> str:
        if seen.status != 200:
            known = chat.dialect in ("hyponema", "hyperleap")
            shed = words(chat.dialect, seen) == "overloaded" if known else seen.status == 503
            return "overloaded" if shed else "status"
        assert seen.ended, "no clean end"
        reader = read(chat, seen)
        assert len(reader.terminals) == 1, reader.terminals
        whole = "".join(TEXTS)
        assert whole.startswith(reader.text), reader.text
        assert (reader.terminals == ["ok"]) <= (reader.text == whole), reader.text
        return "ok" if reader.terminals == ["ok"] else "error record"


class Table:
    """Lines with a verdict."""

    def __init__(self) -> None:
        self.good = True

    def line(self, what: str, figure: object, *, ok: bool = True) -> None:
        """Prints one."""
        self.good = self.good and ok
        print(f"{'ok ' if ok else 'BAD'}  {what:<52} {figure}", flush=True)


async def _attack(world: World, servers: list[ScriptedUpstream], table: Table) -> None:
    gateway, clients = world.gateway, Clients(world)
    await world.ask(STREAMING[0], "Hello")
    begin = usage(gateway.pid)
    middle = asyncio.create_task(_later(RANDOM_S / 2, lambda: usage(gateway.pid)))
    dice = random.Random(SEED)
    weights, scripts = zip(*FAULTS, strict=True)

    def fail_at_random(seen: Seen) -> Script:
        script: Script = dice.choices(scripts, weights)[0]
        return script

    for server in servers:
        server.play(fail_at_random)
    await clients.run(RANDOM_S)
    await _compare(world, servers, clients, table, "random")
    turns, calls = clients.ends.total() - clients.ends["overloaded"], _calls(servers)
    table.line("calls per turn under random faults", f"{calls / turns:.2f}")
    good = clients.ends["ok"] / turns
    table.line("turns that ended well (70 % of calls do)", f"{good:.1%}", ok=good > 0.7)
    for server in servers:
        server.play(DOWN)
    await clients.run(STORM_S)
    stormy = clients.ends.total() - clients.ends["overloaded"] - turns
    ratio = (_calls(servers) - calls) / stormy
    table.line("calls per turn in a storm of 503 (at most 1.2)", f"{ratio:.3f}", ok=ratio <= 1.2)
    await _compare(world, servers, clients, table, "storm")
    await _left_over(world, servers, table, begin, await middle)


async def _later(seconds: float, read_now: Callable[[], Usage]) -> Usage:
    await asyncio.sleep(seconds)
    return read_now()


def _calls(servers: list[ScriptedUpstream]) -> int:
    return sum(len(server.requests) for server in servers)


async def _compare(
    world: World, servers: list[ScriptedUpstream], clients: Clients, table: Table, phase: str
) -> None:
    """The same numbers from all three sides; one turn and one call came before the clients."""
    gateway, ends = world.gateway, clients.ends
    turns = ends.total() - ends["overloaded"]
    page = await gateway.settled()
    counted = page.by("chatgw_turns_total", "outcome")
    calls = page.total("chatgw_upstream_calls_total")
    shed = page.total("chatgw_refused_total", kind="overloaded")
    named = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    table.line(f"{phase}: ends that clients saw", named)
    table.line(f"{phase}: turns without exactly one end", clients.bad[:3] or 0, ok=not clients.bad)
    both = f"{turns} = {counted.total() - 1}"
    table.line(f"{phase}: turns, clients = gateway", both, ok=turns == counted.total() - 1)
    well = (ends["ok"], counted["ok"] - 1)
    table.line(f"{phase}: good turns, clients = gateway", well, ok=well[0] == well[1])
    sent = (_calls(servers), int(calls))
    table.line(f"{phase}: calls, servers = gateway", sent, ok=sent[0] == sent[1])
    turned = (ends["overloaded"], int(shed))
    table.line(f"{phase}: turned away, clients = gateway", turned, ok=turned[0] == turned[1])


async def _left_over(
    world: World, servers: list[ScriptedUpstream], table: Table, begin: Usage, middle: Usage
) -> None:
    gateway = world.gateway
    await asyncio.sleep(2)
    running = await gateway.total("chatgw_turns_in_flight")
    calling = await gateway.total("chatgw_upstream_in_flight")
    table.line("turns and calls left in flight", (running, calling), ok=not running and not calling)
    held = sum(server.open_connections for server in servers)
    table.line("connections to servers left open", held, ok=held == 0)
    end = usage(gateway.pid)
    table.line(
        "open files at the beginning, at the end",
        (begin.files, end.files),
        ok=end.files <= begin.files + 10,
    )
    table.line(
        "resident MB at the beginning, in the middle, at the end",
        tuple(round(one.resident / 1e6) for one in (begin, middle, end)),
        ok=end.resident - middle.resident < 10e6,
    )
    for name in ("retries", "retries_refused", "ejections"):
        count = await gateway.total(f"chatgw_upstream_{name}_total")
        table.line(f"chatgw_upstream_{name}_total", int(count))
    strange = [one for one in gateway.records if one.get("event") == "turn_fault"]
    table.line("faults of the gateway's own in its log", len(strange), ok=not strange)


async def _main() -> bool:
    table = Table()
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(ScriptedUpstream(GOOD)) for _ in range(3)]
        pool = upstream("", targets=[{"base_url": f"{server.url}/v1"} for server in servers])
        del pool["base_url"]
        pool |= {"first_token_s": 2, "idle_s": 2, "connect_s": 3}
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # In a file: conversations kept in memory would look like a leak.
        store = f"sqlite:{directory}/chaos.db"
        settings = config({"pool": pool}, tenants={"acme": tenant("acme")}, store=store)
        gateway = await GatewayProcess(settings, directory).start()
        stack.push_async_callback(gateway.stop)
        await _attack(World(gateway, None), servers, table)
    return table.good


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(_main()) else 1)
