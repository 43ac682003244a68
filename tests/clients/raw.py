"""Clients that hand over the bytes: curl, requests and httpx, on every streaming wire.

The bytes are understood by `reading`; every kind of connection that the client can make is tried.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import httpx
import requests

from tests.clients.cases import CASES, Case, Fact
from tests.clients.grid import Client, Grid
from tests.clients.reading import read
from tests.clients.stage import Stage
from tests.clients.wires import WIRES, Seen, Wire
from tests.e2e.tls import CERTIFICATE, client_context
from tests.e2e.wire import Request

CLOCK_S: Final = 30.0
NAMES: Final = ("hyponema", "hyperleap", "widget", "helper v4", "helper v5")
BLIND: Final = frozenset[Fact]({"state", "open"})
CURL: Final = {
    "1.1": ("--http1.1",),
    "2": ("--http2-prior-knowledge",),
    "2 TLS": ("--http2", "--cacert", str(CERTIFICATE)),
}
_REQUESTS: Final = f"requests {requests.__version__}"
_HTTPX: Final = f"httpx {httpx.__version__}"
NAMED: Final = ("curl", _REQUESTS, _HTTPX)
_AT_A_TIME: Final = 3

Got = tuple[int, str, bytes]
"""Status, version of HTTP, body."""
Ask = Callable[[Request, str], Awaitable[Got]]


async def check(stage: Stage, grid: Grid) -> None:
    """Every case on every wire with each of them."""
    if shutil.which("curl") is None:
        grid.table.leave_out("curl", "curl")
    else:
        for http in CURL:
            await _all("curl", http, partial(_curl, http), stage, grid)
    await _all(_REQUESTS, "1.1", _requests, stage, grid)
    for http in CURL:
        await _all(_HTTPX, http, partial(_httpx, http), stage, grid)


async def _all(name: str, http: str, ask: Ask, stage: Stage, grid: Grid) -> None:
    clients = [Client(name, http, wire, BLIND) for wire in NAMES]
    rows = (row(client, partial(_one, ask, client), stage) for client in clients)
    for client, seen in zip(clients, await asyncio.gather(*rows), strict=True):
        grid.add(client, seen)


async def row(
    client: Client, one: Callable[[Stage, Case, Wire], Awaitable[Seen]], stage: Stage
) -> dict[str, Seen]:
    """What a client saw of each case, a few at a time."""
    turnstile = asyncio.Semaphore(_AT_A_TIME)

    async def guarded(case: Case) -> Seen:
        async with turnstile:
            try:
                async with asyncio.timeout(CLOCK_S):
                    return await one(stage, case, WIRES[client.wire])
            except Exception as error:  # whatever a client raises is what its user would see
                return {"crashed": repr(error)}

    return dict(
        zip((case.name for case in CASES), await asyncio.gather(*map(guarded, CASES)), strict=True)
    )


async def _one(ask: Ask, client: Client, stage: Stage, case: Case, wire: Wire) -> Seen:
    job = await stage.job(case, wire)
    tls = client.http.endswith("TLS")
    request = stage.request(case, wire, job)
    status, version, body = await ask(request, job.tls_url if tls else job.url)
    if not version.endswith(client.http.split()[0]):
        return {"crashed": f"this was HTTP/{version}"}
    return read(client.wire, status, body)


async def _curl(http: str, request: Request, url: str) -> Got:
    headers = [part for name, value in request.headers for part in ("-H", f"{name}: {value}")]
    process = await asyncio.create_subprocess_exec(
        "curl",
        *("--silent", "--no-buffer", "--max-time", str(CLOCK_S), *CURL[http]),
        *("-X", request.method, *headers, "--data-binary", "@-"),
        *("--write-out", "%{stderr}%{http_code} %{http_version}", url + request.path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    body, written = await process.communicate(request.body)
    if process.returncode:
        raise ConnectionError(f"curl ended with {process.returncode}")
    status, version = written.decode().split()
    return int(status), version, body


async def _requests(request: Request, url: str) -> Got:
    def ask() -> Got:
        response = requests.request(
            request.method,
            url + request.path,
            headers=dict(request.headers),
            data=request.body,
            stream=True,
            timeout=CLOCK_S,
        )
        return response.status_code, "1.1", b"".join(response.iter_content(None))

    return await asyncio.to_thread(ask)


async def _httpx(http: str, request: Request, url: str) -> Got:
    async with (
        httpx.AsyncClient(
            http1=http == "1.1",
            http2=http != "1.1",
            verify=client_context(),
            timeout=CLOCK_S,
            trust_env=False,
        ) as client,
        client.stream(
            request.method,
            url + request.path,
            headers=list(request.headers),
            content=request.body,
        ) as response,
    ):
        body = b"".join([part async for part in response.aiter_raw()])
        return response.status_code, response.http_version, body
