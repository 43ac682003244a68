"""A real browser, a page of another origin, and a streaming widget chat: CORS as browsers judge it.

Serves one page on two ports of loopback, of which the gateway's tenant lists the first. The page
runs the fetch loop of the widget's documentation, puts the words on screen as they come, and
reports what it saw to the server that it came from. Needs chromium (Debian; installed in CI).
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.ci.debian import find_or_install
from tests.e2e.config import key_of, tenant
from tests.e2e.world import open_world
from tests.upstream import Sleep, openai_stream

WORDS: Final = ("Chat ", "from ", "another ", "origin: ", "日本 ", "🧑‍🚀")
CLOCK_S: Final = 60.0
Report = dict[str, dict[str, object]]
PAGE: Final = """<!doctype html><meta charset="utf-8"><title>Shop</title><p id="reply"></p>
<script>
const gateway = %(gateway)s, key = %(key)s;
async function ask(credential) {
  const seen = { text: "", reads: 0, status: 0, requestId: null, error: null };
  try {
    const response = await fetch(gateway + "/chat", {
      method: "POST",
      headers: { "Content-Type": "application/json", "x-api-key": credential },
      body: JSON.stringify({ sessionId: "browser", message: "Hello" }),
    });
    seen.status = response.status;
    seen.requestId = response.headers.get("x-request-id");
    if (!response.ok) { seen.text = await response.text(); return seen; }
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    while (true) {
      const { done, value } = await reader.read();
      if (done) break;
      seen.reads += 1;
      for (const line of decoder.decode(value).split("\\n").filter((line) => line.trim())) {
        const event = JSON.parse(line);
        if (event.type === "token") document.getElementById("reply").textContent += event.token;
        if (event.type === "error") seen.error = event.error;
      }
    }
    seen.text = document.getElementById("reply").textContent;
  } catch (error) {
    seen.error = error.name;
  }
  return seen;
}
(async () => {
  const report = { good: await ask(key), bad: await ask("wrong") };
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
})();
</script>"""


class Page:
    """The page's server on one origin, and what the page reported."""

    def __init__(self) -> None:
        self.report: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self.html = ""
        self.origin = ""

    async def start(self) -> web.AppRunner:
        """Listens on a port of the system's choosing."""
        application = web.Application()
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


async def visit(browser: str, page: Page) -> Report:
    """Opens the page in a browser of its own and waits for the report."""
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
            f"--user-data-dir={profile}",
            page.origin + "/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(CLOCK_S):
                return await page.report
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it has children of its own
            await process.wait()


def differences(
    seen: dict[str, dict[str, object]], stranger: dict[str, dict[str, object]]
) -> list[str]:
    """What is not as it should be, in words; nothing if all is."""
    good, bad = seen["good"], seen["bad"]
    reads = good["reads"]
    checks = {
        "the listed page shows every word": good["text"] == "".join(WORDS) and not good["error"],
        "the words came one after another": isinstance(reads, int) and reads > len(WORDS) / 2,
        "the page can read the request id": bool(good["requestId"]),
        "the page can read a refusal": (bad["status"], bad["text"])
        == (401, '{"error":"Unauthorized"}'),
        "the other page cannot ask": stranger["good"]["error"] == "TypeError",
        "the other page sees no refusal either": stranger["bad"]["error"] == "TypeError",
    }
    for name, good_so in checks.items():
        print(f"{'ok  ' if good_so else 'FAIL'} {name}")
    return [name for name, good_so in checks.items() if not good_so]


async def check(browser: str) -> int:
    """The number of checks that failed."""
    listed, other = Page(), Page()
    runners = [await listed.start(), await other.start()]
    try:
        with tempfile.TemporaryDirectory() as directory:
            section = tenant("acme", cors_origins=[listed.origin])
            async with open_world(Path(directory), tenants={"acme": section}) as world:
                for page in (listed, other):
                    page.html = PAGE % {
                        "gateway": json.dumps(f"http://{world.gateway.public}"),
                        "key": json.dumps(key_of("acme", "widget")),
                    }
                # A browser joins what comes within a few milliseconds.
                events = openai_stream(WORDS)
                world.play(*(step for event in events for step in (event, Sleep(0.05))))
                seen = await visit(browser, listed)
                stranger = await visit(browser, other)
                calls = world.calls
    finally:
        for runner in runners:
            await runner.cleanup()
    failed = differences(seen, stranger)
    if calls != 1:
        failed.append(f"{calls} calls reached the model instead of 1")
        print("FAIL", failed[-1])
    print(f"browser: {7 - len(failed)} passed, {len(failed)} failed")
    return len(failed)


def main() -> int:
    """The exit status; 0 if there is no browser and none may be installed."""
    browser = find_or_install("chromium", "chromium")
    return 0 if browser is None else int(asyncio.run(check(browser)) > 0)


if __name__ == "__main__":
    sys.exit(main())
