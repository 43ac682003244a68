"""What is attacked: the gateway, or stock Hypercorn with a plain application, and its model.

Both look the same to a case: a public listener with the widget's chat route, a scripted model
behind it, processes of one session, and a probe in each of them.
"""

import asyncio
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol

from tests.attack import processes, stock
from tests.attack.frames import WAIT_S, WINDOW, Wire
from tests.attack.model import FIRST, SECOND, Model
from tests.e2e.config import config, key_of, tenant, upstream
from tests.e2e.http1 import H1
from tests.e2e.process import ROOT, GatewayProcess, clean_environment
from tests.e2e.routes import WIDGET
from tests.e2e.tls import server_settings
from tests.e2e.wire import Address, Answer, Exchange, Request, whole
from tests.e2e.world import read
from tests.upstream import ScriptedUpstream

Kind = Literal["ours", "stock"]
GOOD: Final = "good"
"""The tenant of the good client: who floods is refused first, and with it its whole tenant."""
BODY_S: Final = 1.5
SEND_S: Final = 3.0
IDLE_S: Final = 2.0
OUTPUT_BYTES: Final = 1_048_576
# What a clock may be late by on two busy cores.
LATE_S: Final = 6.0
_SPARE: Final = 3
_PRELOAD: Final = Path(__file__).parent / "preload"
_STOCK_WORKERS: Final = 2


class Process(Protocol):
    """A running server."""

    public: Address
    tls: Address | None

    @property
    def pid(self) -> int:
        """The process that leads the session."""
        ...

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to it."""
        ...

    async def wait(self) -> int:
        """Its exit status."""
        ...


class Held(NamedTuple):
    """What the site's processes hold."""

    descriptors: int
    tasks: int


class Site:
    """One server under attack and its model."""

    def __init__(
        self, kind: Kind, process: Process, model: Model, probes: Path, directory: Path
    ) -> None:
        self.kind = kind
        self.process = process
        self.model = model
        self.probes = probes
        self.directory = directory

    @property
    def gateway(self) -> GatewayProcess:
        """The process, where it is the gateway's."""
        assert isinstance(self.process, GatewayProcess)
        return self.process

    @property
    def address(self) -> Address:
        """The public listener."""
        return self.process.public

    # What a client does.

    def ask(self, text: str, *, session: str = "", tenant: str = "acme") -> Request:
        """A message on the widget's stream route."""
        return WIDGET.request(re.sub(r"\W", "-", session or text), text, tenant=tenant)

    def stranger(self) -> Request:
        """The same with a key that nobody has."""
        return WIDGET.request("stranger", "Hello", credential="not-a-key-of-anyone")

    async def h1(self) -> H1:
        """A connection of HTTP/1.1; the caller closes it."""
        return await H1.connect(self.address)

    async def wire(self, *, window: int = WINDOW) -> Wire:
        """A connection of raw HTTP/2 frames; the caller closes it."""
        return await Wire.open(self.address, window=window)

    # What its processes hold.

    def resident_bytes(self) -> int:
        """Memory, all processes together."""
        return processes.resident_bytes(self.process.pid)

    def cpu_seconds(self) -> float:
        """Processor time, all living processes together."""
        return processes.cpu_seconds(self.process.pid)

    async def cores(self, seconds: float) -> float:
        """Cores that its processes keep busy for so long, with what the good client asks."""
        before, began = self.cpu_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        return (self.cpu_seconds() - before) / (time.monotonic() - began)

    def workers(self) -> list[int]:
        """The leader's children that serve."""
        return [pid for pid in processes.children_of(self.process.pid) if self._probe(pid)]

    def _probe(self, pid: int) -> bool:
        return (self.probes / str(pid)).exists() and b"resource_tracker" not in _command(pid)

    async def held(self) -> Held:
        """Descriptors, but the connections kept for the model on purpose; and tasks."""
        pids = processes.session_of(self.process.pid)
        tasks = [await processes.tasks(self.probes, pid) for pid in pids]
        return Held(self._descriptors(), sum(tasks))

    def _descriptors(self) -> int:
        return processes.descriptors(self.process.pid) - self.model.upstream.open_connections

    async def in_flight(self) -> float:
        """Turns that run now, as the metrics say; the plain application has no metrics."""
        if self.kind == "stock":
            return 0
        return await self.gateway.total("chatgw_turns_in_flight")

    async def leaks(self, base: Held, within: float = IDLE_S + LATE_S) -> list[str]:
        """What is held above the base once the time is over; nothing if all came back."""
        end = time.monotonic() + within
        turns = 0.0
        while True:
            late = time.monotonic() > end
            calls = self.model.running
            # The probe holds a process up while it counts, so it is asked only when it may be over.
            open_ones = self._descriptors()
            good = open_ones <= base.descriptors + _SPARE and not calls
            held = await self.held() if good or late else Held(open_ones, 0)
            if (good and held.tasks <= base.tasks + _SPARE) or late:
                # Asked for last: a scrape is itself a connection.
                turns = await self.in_flight()
                if not turns and not late:
                    return []
            if late:
                text = f"descriptors {base.descriptors}→{held.descriptors}, "
                text += f"tasks {base.tasks}→{held.tasks}, turns {turns:g}, calls {calls}"
                return [f"left over: {text}"]
            await asyncio.sleep(0.1)

    def faults(self) -> list[str]:
        """Log lines that no client should be able to cause; the plain application's do not count.

        Forgets them.
        """
        if self.kind == "stock":
            return []
        gateway = self.gateway
        wrong = [f"not JSON: {line}" for line in gateway.noise]
        wrong += [f"logged {entry}" for entry in gateway.records if entry.get("level") == "error"]
        gateway.noise.clear()
        gateway.records.clear()
        return wrong


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class StockProcess:
    """`hypercorn` as it comes, with two workers and the plain application."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.public = Address("127.0.0.1", 0)
        self.tls: Address | None = None
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._running = 0
        self._ready = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process that leads the session."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns when both workers serve."""
        module = f"{stock.__name__}:app"
        workers = str(_STOCK_WORKERS)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hypercorn", module),
            *("--bind", "127.0.0.1:0", "--workers", workers, "--error-logfile", "-"),
            cwd=ROOT,
            env=clean_environment(**self._environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read())
        async with asyncio.timeout(30):
            await self._ready.wait()
        assert self.public.port, "hypercorn did not start"

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if b"Running on http://" in line:
                text = line.decode().split("http://")[1].split(" ")[0]
                self.public = Address.parse(text)
                self._running += 1
                if self._running == _STOCK_WORKERS:
                    self._ready.set()
        self._ready.set()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the master."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> int:
        """The exit status."""
        assert self._process is not None
        return await self._process.wait()


@asynccontextmanager
async def open_site(
    kind: Kind,
    *,
    tls: bool = False,
    store: str = "memory:",
    clocks: Mapping[str, float] | None = None,
    **sections: Mapping[str, object],
) -> AsyncIterator[Site]:
    """A site that loses patience soon; whatever is left of it at the end is killed.

    `clocks` are the upstream's; `sections` go over the gateway's configuration, `limits` and
    `server` setting by setting. The plain application has none of these.
    """
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        directory = Path(name)
        probes = directory / "probes"
        probes.mkdir()
        async with ScriptedUpstream() as scripted:
            model = Model(scripted)
            environment = {
                "PYTHONPATH": f"{_PRELOAD}:{ROOT}",
                "ATTACK_PROBES": str(probes),
                stock.UPSTREAM: scripted.url,
            }
            process: GatewayProcess | StockProcess
            if kind == "stock":
                process = StockProcess(environment)
            else:
                settings = site_config(
                    scripted.url, tls=tls, store=store, clocks=clocks or {}, sections=sections
                )
                process = GatewayProcess(settings, directory)
                process.environment = environment
            try:
                await process.start()
                yield Site(kind, process, model, probes, directory)
            finally:
                processes.end_session(process.pid)
                await process.wait()


def site_config(
    url: str,
    *,
    tls: bool = False,
    store: str = "memory:",
    clocks: Mapping[str, float] = MappingProxyType({}),
    sections: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
) -> dict[str, object]:
    """A gateway's configuration with short clocks and a model at that address."""
    limits = {
        "body_s": BODY_S,
        "send_s": SEND_S,
        "connection_idle_s": IDLE_S,
        "output_bytes": OUTPUT_BYTES,
        **sections.get("limits", {}),
    }
    server = {**(server_settings() if tls else {}), **sections.get("server", {})}
    more = {name: section for name, section in sections.items() if name not in ("limits", "server")}
    tenants = {
        "acme": tenant("acme"),
        GOOD: tenant(GOOD),
        "limited": tenant("limited", requests_per_minute=1),
    }
    patience = {"first_token_s": 60.0, "idle_s": 60.0, "total_s": 120.0, **clocks}
    upstreams = {"main": upstream(f"{url}/v1", **patience)}
    return config(upstreams, tenants=tenants, store=store, limits=limits, server=server, **more)


def says(answer: Answer, text: str) -> bool:
    """Whether a widget stream ended well and says this."""
    if answer.status != 200 or not answer.ended:
        return False
    reader = read(WIDGET, answer)
    return (reader.text, reader.terminals) == (text, ["ok"])


async def completes(exchange: Exchange, text: str = FIRST + SECOND) -> bool:
    """Whether a widget stream that is under way ends well and says this."""
    await exchange.head()
    while await exchange.part() is not None:
        pass
    return says(exchange.answer, text)


async def in_time(completing: Awaitable[bool], within: float = WAIT_S) -> bool:
    """Whether it comes true before the time is over; a connection that breaks is not true."""
    try:
        return await asyncio.wait_for(completing, within)
    except (TimeoutError, OSError, EOFError):
        return False


async def status_of(exchange: Exchange, within: float = WAIT_S) -> int:
    """The status of a whole answer; 0 if none came in time."""
    try:
        answer = await asyncio.wait_for(whole(exchange), within)
    except (TimeoutError, OSError, EOFError):
        return 0
    return answer.status


def limited_key() -> str:
    """The key of a tenant that has used its requests up after the first one."""
    return key_of("limited", "widget")
