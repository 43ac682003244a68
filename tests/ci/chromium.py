"""A real browser without a screen: it opens one page, which reports what it saw.

The page is served on a port of loopback, so its origin is another than the gateway's.
"""

import asyncio
import base64
import hashlib
import os
import signal
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientWebSocketResponse, web

CLOCK_S: Final = 60.0
_LARGEST_REPORT: Final = 64 * 1024 * 1024


class Page:
    """The page's server on one origin, and what the page reported: one JSON value."""

    def __init__(self) -> None:
        self.report: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.html = ""
        self.origin = ""

    async def start(self) -> web.AppRunner:
        """Listens on a port of the system's choosing."""
        application = web.Application(client_max_size=_LARGEST_REPORT)
        application.router.add_get("/", self._page)
        application.router.add_post("/report", self._report)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.origin = f"http://{host}:{port}"
        return runner

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=self.html, content_type="text/html")

    async def _report(self, request: web.Request) -> web.Response:
        if not self.report.done():
            self.report.set_result(await request.json())
        return web.Response(status=204)


@dataclass(frozen=True)
class Visit:
    """What a page reported, and by origin the protocols that the browser says it spoke."""

    report: object
    spoken: dict[str, set[str]]


async def visit(browser: str, page: Page, certificate: Path) -> Visit:
    """Opens the page in a browser that trusts the certificate's key, and waits for the report."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            f"--ignore-certificate-errors-spki-list={key_digest(certificate)}",
            f"--user-data-dir={profile}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(CLOCK_S):
                return await _open(page, Path(profile, "DevToolsActivePort"))
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it has children of its own
            await process.wait()


async def _open(page: Page, port_file: Path) -> Visit:
    """Opens the page over the DevTools protocol, which tells of every response's protocol."""
    while not port_file.exists() or not (lines := port_file.read_text().splitlines()):
        await asyncio.sleep(0.05)
    spoken: dict[str, set[str]] = {}
    async with ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
            targets = await answer.json()
        address = next(one["webSocketDebuggerUrl"] for one in targets if one["type"] == "page")
        async with session.ws_connect(address, max_msg_size=_LARGEST_REPORT) as tools:
            await tools.send_json({"id": 1, "method": "Network.enable"})
            await tools.send_json(
                {"id": 2, "method": "Page.navigate", "params": {"url": f"{page.origin}/"}}
            )
            noting = asyncio.create_task(_note(tools, spoken))
            try:
                return Visit(await page.report, spoken)
            finally:
                noting.cancel()


async def _note(tools: ClientWebSocketResponse, spoken: dict[str, set[str]]) -> None:
    async for message in tools:
        event = message.json()
        if event.get("method") == "Network.responseReceived":
            response = event["params"]["response"]
            parts = urlsplit(response["url"])
            spoken.setdefault(f"{parts.scheme}://{parts.netloc}", set()).add(response["protocol"])


def key_digest(certificate: Path) -> str:
    """The base64 SHA-256 of the key in the first certificate of a PEM file (RFC 5280, 4.1)."""
    pem = certificate.read_text()
    begin = pem.index("-----BEGIN CERTIFICATE-----")
    end = pem.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    whole = ssl.PEM_cert_to_DER_cert(pem[begin:end])
    (tbs, *_) = _members(whole)
    # Version, serial number, signature, issuer, validity, subject, subject's public key.
    key = _members(tbs)[6]
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def _members(sequence: bytes) -> list[bytes]:
    """The values inside a DER sequence, each with its own head (X.690, 8.1)."""
    inside, found = _split(sequence)[0], []
    while inside:
        rest = _split(inside)[1]
        found.append(inside[: len(inside) - len(rest)])
        inside = rest
    return found


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The content of the first value, and what follows it."""
    length, head = data[1], 2
    if length & 0x80:
        head += length & 0x7F
        length = int.from_bytes(data[2:head])
    return data[head : head + length], data[head + length :]
