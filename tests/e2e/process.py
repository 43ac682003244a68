"""A gateway as its users start it: a child process, a configuration file, sockets on loopback.

The process gets ports of the system's choosing and says in its `listening` line which. Every wait
has a clock; at the end its exit status is known and no child of it may be left.
"""

import asyncio
import fcntl
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.pages import FRESH_S
from tests.e2e.canaries import found_in
from tests.e2e.http1 import H1
from tests.e2e.wire import Address, Answer, Request, whole

ROOT: Final = Path(__file__).resolve().parents[2]
START_S: Final = 30.0
STOP_S: Final = 30.0
WAIT_S: Final = 30.0

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
"""(sample name, labels) -> value."""


@dataclass(frozen=True)
class Scrape:
    """One page of metrics."""

    samples: Samples

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels."""
        wanted = set(labels.items())
        return sum(v for (key, has), v in self.samples.items() if key == name and wanted <= has)

    def by(self, name: str, label: str) -> Counter[str]:
        """The sums of the samples of that name, by one label."""
        sums: Counter[str] = Counter()
        for (key, has), value in self.samples.items():
            if key == name:
                sums[dict(has)[label]] += int(value)
        return sums

    def since(self, before: "Scrape") -> "Scrape":
        """By how much each sample is more than it was."""
        was = before.samples
        return Scrape({key: value - was.get(key, 0) for key, value in self.samples.items()})


def clean_environment(**more: str) -> dict[str, str]:
    """This process's variables without the gateway's own, and with compiled modules kept."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**kept, "PYTHONPATH": str(ROOT), **more}


class GatewayProcess:
    """One `gateway serve`. `records` are its log lines, `noise` the lines that are not JSON."""

    def __init__(self, config: Mapping[str, object], directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.file = directory / "gateway.yaml"
        self.file.write_text(json.dumps(config, indent=1))  # JSON is YAML
        self.command = [sys.executable, "-m", "gateway", "serve", "--config", str(self.file)]
        self.command += arguments
        self.environment: dict[str, str] = {}
        self.records: list[dict[str, object]] = []
        self.noise: list[str] = []
        self.leaks: list[str] = []
        self.public = Address("127.0.0.1", 0)
        self.tls: Address | None = None
        self.admin = Address("127.0.0.1", 0)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._outdated = 0.0

    @property
    def pid(self) -> int:
        """The process that `serve` runs in; also its process group."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> "GatewayProcess":
        """Returns when the gateway listens; fails with its output if it does not."""
        self._listening.clear()
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            cwd=self.directory,
            env=clean_environment(**self.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(START_S):
                await self._listening.wait()
        except TimeoutError:
            await self.kill()
        if self.public.port == 0:
            await self.wait()
            raise AssertionError(f"the gateway did not listen: {self.records} {self.noise}")
        return self

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._take(line.decode(errors="replace").rstrip("\n"))
        self._listening.set()  # nothing will come any more

    def _take(self, line: str) -> None:
        self.leaks += found_in(line)
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            self.noise.append(line)
            return
        self.records.append(record)
        if record.get("event") == "listening":
            plain, tls = (
                [Address.parse(str(text)) for text in record[key]] for key in ("public", "tls")
            )
            self.tls = tls[0] if tls else None
            self.public = (plain or tls)[0]
            self.admin = Address.parse(str(record["admin"]))
            self._listening.set()

    @contextmanager
    def unread(self, pipe_bytes: int = 4096) -> Iterator[None]:
        """Nobody reads its output in the block, and there is room for so much."""
        assert self._process is not None
        transport = self._process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        fcntl.fcntl(transport.get_extra_info("pipe"), fcntl.F_SETPIPE_SZ, pipe_bytes)
        transport.pause_reading()
        try:
            yield
        finally:
            transport.resume_reading()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process that `serve` runs in."""
        assert self._process is not None
        self._process.send_signal(number)

    async def exited(self) -> int:
        """The exit status, also while nobody reads the output."""
        assert self._process is not None
        async with asyncio.timeout(STOP_S):
            while self._process.returncode is None:
                await asyncio.sleep(0.05)
        return self._process.returncode

    async def wait(self) -> int:
        """The exit status; the output is read to its end."""
        assert self._process is not None
        async with asyncio.timeout(STOP_S):
            status = await self._process.wait()
            if self._reader is not None:
                await self._reader
        return status

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to stop; it has to exit with 0 and leave no child behind."""
        if self._process is None or self._process.returncode is not None:
            return
        self.send(number)
        try:
            status = await self.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"the gateway did not stop: {self.records[-5:]}") from None
        assert status == 0, (status, self.records[-5:], self.noise)
        assert not self.children(), "a child outlived the gateway"
        assert not self.leaks, f"in a log line or a scrape: {self.leaks}"

    async def kill(self) -> None:
        """Ends the whole process group at once."""
        if self.children():
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait()

    def children(self) -> bool:
        """Whether any process of its group is left, itself included."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    async def ask(self, address: Address, path: str) -> Answer:
        """One GET on a connection of its own."""
        connection = await H1.connect(address)
        try:
            return await whole(await connection.send(Request("GET", path)))
        finally:
            await connection.close()

    async def workers(self) -> dict[int, int]:
        """The process of each worker that listens, by its place."""
        answer = await self.ask(self.admin, "/readyz?verbose")
        found = re.findall(r"worker (\d+): listening, process (\d+)", answer.text)
        return {int(slot): int(process) for slot, process in found}

    async def metrics(self) -> Scrape:
        """A scrape of what is counted now."""
        await asyncio.sleep(self._outdated - time.monotonic())
        answer = await self.ask(self.admin, "/metrics")
        assert answer.status == 200
        # Whoever asks again so soon is shown the same page.
        self._outdated = time.monotonic() + FRESH_S
        self.leaks += found_in(answer.text)
        return Scrape(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
            }
        )

    async def settled(self) -> Scrape:
        """A scrape in which every turn has ended that was admitted so far."""
        return await self.eventually("chatgw_turns_in_flight", 0)

    async def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels, now."""
        return (await self.metrics()).total(name, **labels)

    async def by(self, name: str, label: str) -> Counter[str]:
        """The sums of the samples of that name by one label, now."""
        return (await self.metrics()).by(name, label)

    async def eventually(self, name: str, value: float, **labels: str) -> Scrape:
        """The first scrape whose sum is `value`; fails after `WAIT_S` with what it was."""
        end = time.monotonic() + WAIT_S
        while (seen := (page := await self.metrics()).total(name, **labels)) != value:
            assert time.monotonic() < end, f"{name}{labels} is {seen}, not {value}"
            assert seen < value or not name.endswith("_total"), f"{name}{labels} is {seen} by now"
        return page

    async def logged(self, event: str, times: int = 1) -> list[dict[str, object]]:
        """Waits until there are so many log lines of that event; all of them."""
        end = time.monotonic() + WAIT_S
        while True:
            found = [entry for entry in self.records if entry.get("event") == event]
            if len(found) >= times:
                return found
            assert time.monotonic() < end, f"{event} was logged {len(found)} times: {self.records}"
            await asyncio.sleep(0.01)

    async def record_of(self, request_id: str) -> dict[str, object]:
        """The log line of a request, by its id; waits for it."""
        end = time.monotonic() + WAIT_S
        while True:
            found = [entry for entry in self.records if entry.get("request_id") == request_id]
            if found:
                return found[0]
            assert time.monotonic() < end, f"no log line for {request_id}"
            await asyncio.sleep(0.02)
