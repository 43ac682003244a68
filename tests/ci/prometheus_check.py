"""Lets a real Prometheus watch a real gateway, and compares what both counted.

Needs Debian's package `prometheus` (server and promtool); with CI=true it is installed. Everything
listens on loopback, on ports of the system's choosing, and is ended at the end.
"""

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.parse import quote

import yaml

from gateway.telemetry.catalogue import CATALOGUE
from tests.ci.debian import find_or_install
from tests.e2e.config import config, key_of, upstream
from tests.e2e.process import ROOT, GatewayProcess
from tests.e2e.wire import Address

DEPLOYED: Final = ROOT / "deploy" / "prometheus" / "prometheus.yml"
RULES: Final = DEPLOYED.with_name("rules.yml")
GOOD: Final = 7
FAILED: Final = 2
REFUSED: Final = 3
WORKERS: Final = 2
INPUT_TOKENS: Final = 11
OUTPUT_TOKENS: Final = 3
ANSWER_S: Final = 10.0
WAIT_S: Final = 30.0


class Checks:
    """What was checked, and how often it held."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def that(self, claim: str, found: object, wanted: object) -> None:
        """Counts and prints one comparison."""
        if found == wanted:
            self.passed += 1
            print(f"ok: {claim}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED: {claim}: {found!r} is not {wanted!r}", flush=True)


class Prometheus:
    """A running Prometheus, asked through its HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str) -> object:
        """The `data` of an answer. Raises `OSError` while it does not listen yet."""
        status, body = fetch(Address("127.0.0.1", self.port), "GET", path)
        if status != 200:
            raise ConnectionError(f"status {status}")
        return json.loads(body)["data"]

    def value(self, expression: str) -> float | None:
        """The one value of an instant query; None if it has no series."""
        data = self.ask(f"/api/v1/query?query={quote(expression)}")
        assert isinstance(data, dict)
        rows = data["result"]
        assert len(rows) < 2, f"{expression} has {len(rows)} series"
        return float(rows[0]["value"][1]) if rows else None

    async def until(self, holds: Callable[[], bool]) -> bool:
        """Whether it held within `WAIT_S`; while it does not listen, it does not hold."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                if await asyncio.to_thread(holds):
                    return True
            except OSError:
                pass
            await asyncio.sleep(0.2)
        return False


def fetch(
    address: Address,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and whole body."""
    connection = http.client.HTTPConnection(*address, timeout=ANSWER_S)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def say(public: Address, text: str, key: str) -> tuple[int, bytes]:
    """One widget turn: status and body."""
    body = json.dumps({"sessionId": f"session-{text}", "message": text}).encode()
    headers = {"content-type": "application/json", "x-api-key": key}
    return fetch(public, "POST", "/v1/chat/stream", body, headers)


@asynccontextmanager
async def prometheus(program: str, target: Address, folder: Path) -> AsyncIterator[Prometheus]:
    """The deployed configuration, with another target and a shorter interval, in a Prometheus."""
    settings = yaml.safe_load(DEPLOYED.read_text())
    settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    settings["rule_files"] = [str(RULES)]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [str(target)]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(settings))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.retention.time=1h",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
    finally:
        await end(process)


async def end(process: asyncio.subprocess.Process) -> None:
    """Asks a process to stop, and makes it if it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(ANSWER_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def promtool(*arguments: str, text: bytes = b"") -> tuple[int, str]:
    """Exit status and output of promtool."""
    done = subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, timeout=ANSWER_S, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace").strip()


class _Model(BaseHTTPRequestHandler):
    """A model server of OpenAI's shape with one answer; a prompt with `fail` in it gets a 400."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "fail" in request["messages"][-1]["content"]:
            self._send(400, "application/json", b'{"error": {"message": "no"}}')
            return
        usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS}
        chunks: list[dict[str, object]] = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
            {"choices": [{"index": 0, "delta": {"content": "Good"}}]},
            {"choices": [{"index": 0, "delta": {"content": " morning"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        ]
        events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
        self._send(200, "text/event-stream", b"".join(events) + b"data: [DONE]\n\n")

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def model_server() -> Iterator[str]:
    """The base URL of a model server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def send_turns(checks: Checks, public: Address) -> None:
    """Good and failing turns, and requests that are refused before they are one."""
    key = key_of("acme", "widget")
    plan = [(f"hello-{n}", key, 200) for n in range(GOOD)]
    plan += [(f"fail-{n}", key, 500) for n in range(FAILED)]
    plan += [(f"hello-{n}", "wrong", 401) for n in range(REFUSED)]
    answers = [await asyncio.to_thread(say, public, text, key) for text, key, _ in plan]
    wanted = [status for _, _, status in plan]
    checks.that("every request is answered as planned", [status for status, _ in answers], wanted)
    ends = [body.splitlines()[-1] for status, body in answers if status == 200]
    good = all(b'"done"' in end and b"Good morning" in end for end in ends)
    checks.that("every good turn ends with the model's text", good, True)


async def compare(checks: Checks, watcher: Prometheus) -> None:
    """What Prometheus has counted beside what was sent."""
    turns = "sum(chatgw_turns_total)"
    sent = float(GOOD + FAILED)
    everything = f"{turns} + sum(chatgw_refused_total)"
    await watcher.until(lambda: watcher.value(everything) == sent + REFUSED)
    by_version = 'sum(chatgw_turns_total{dialect="widget",outcome="ok",http_version="1.1"})'
    expected: dict[str, float] = {
        "up": 1,
        turns: sent,
        by_version: GOOD,
        'sum(chatgw_turns_total{outcome!="ok"})': FAILED,
        'sum(chatgw_turns_total{dialect!="widget"})': 0,
        'chatgw_refused_total{dialect="widget",kind="unauthorized"}': REFUSED,
        "sum(chatgw_turns_in_flight)": 0,
        'sum(chatgw_tokens_total{direction="input"})': GOOD * INPUT_TOKENS,
        'sum(chatgw_tokens_total{direction="output"})': GOOD * OUTPUT_TOKENS,
        "sum(gen_ai_client_token_usage_sum)": GOOD * (INPUT_TOKENS + OUTPUT_TOKENS),
        "sum(chatgw_turn_duration_seconds_count)": sent,
        "sum(chatgw_time_to_first_token_seconds_count)": GOOD,
        "sum(gen_ai_server_request_duration_seconds_count)": sent,
        "sum(gen_ai_server_time_to_first_token_seconds_count)": GOOD,
        'chatgw_turns_total{dialect="helper",outcome="internal",http_version="2"}': 0,
        "sum(chatgw_label_overflow_total)": 0,
        "sum(chatgw_turns_admitted_total)": sent,
        'chatgw_workers{state="listening"}': WORKERS,
        "chatgw_workers_configured": WORKERS,
        "count(chatgw_worker_resident_memory_bytes)": WORKERS,
        "count(ALERTS) or vector(0)": 0,
        "chatgw_draining": 0,
        "count(chatgw_build_info)": 1,
        "count(process_resident_memory_bytes)": 1,
    }
    for expression, wanted in expected.items():
        checks.that(expression, watcher.value(expression), wanted)


def check_catalogue(checks: Checks, watcher: Prometheus) -> None:
    """Prometheus knows every family of the catalogue by its type, and had no trouble reading."""
    known = watcher.ask("/api/v1/metadata")
    assert isinstance(known, dict)
    # OpenMetrics names a counter's family without `_total`.
    wanted = {family.name.removesuffix("_total"): family.type for family in CATALOGUE}
    found = {name: known[name][0]["type"] for name in wanted if name in known}
    checks.that("every family of the catalogue arrives with its type", found, wanted)
    targets = watcher.ask("/api/v1/targets")
    assert isinstance(targets, dict)
    errors = [target["lastError"] for target in targets["activeTargets"]]
    checks.that("the one target was scraped without an error", errors, [""])


async def check_stop(checks: Checks, gateway: GatewayProcess, watcher: Prometheus) -> None:
    """A gateway that was stopped is down for Prometheus."""
    await gateway.stop()
    checks.that(
        "a stopped gateway is down", await watcher.until(lambda: watcher.value("up") == 0), True
    )


async def run(program: str, folder: Path) -> Checks:
    """All checks."""
    checks = Checks()
    checks.that(
        "the deployed configuration is valid",
        promtool("check", "config", str(DEPLOYED))[0],
        0,
    )
    for what, file in (("check", RULES), ("test", RULES.with_name("rules_test.yml"))):
        status, said = promtool(what, "rules", str(file))
        checks.that(f"promtool {what} rules", (status, said if status else ""), (0, ""))
    async with AsyncExitStack() as stack:
        base_url = stack.enter_context(model_server())
        settings = config(
            {"main": upstream(base_url)},
            store=f"sqlite:{folder / 'gateway.db'}",
            server={"workers": WORKERS},
        )
        gateway = GatewayProcess(settings, folder)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        watcher = await stack.enter_async_context(prometheus(program, gateway.admin, folder))
        checks.that(
            "Prometheus scrapes the gateway",
            await watcher.until(lambda: watcher.value("up") == 1),
            True,
        )
        await send_turns(checks, gateway.public)
        await compare(checks, watcher)
        check_catalogue(checks, watcher)
        status, page = await asyncio.to_thread(fetch, gateway.admin, "GET", "/metrics")
        checks.that("/metrics answers", status, 200)
        checks.that("promtool has no complaint", promtool("check", "metrics", text=page), (0, ""))
        await check_stop(checks, gateway, watcher)
    return checks


def main() -> int:
    """The exit status: 0 if every check held, or outside CI if there is no Prometheus here."""
    program = find_or_install("prometheus", "prometheus")
    if program is None:
        return int(os.environ.get("CI") == "true")
    with tempfile.TemporaryDirectory(prefix="gateway-prometheus-") as folder:
        checks = asyncio.run(run(program, Path(folder)))
    print(f"{checks.passed} passed, {checks.failed} failed")
    return int(checks.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
