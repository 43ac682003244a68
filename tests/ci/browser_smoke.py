"""A real browser, a page of another origin, and a streaming widget chat: CORS as browsers judge it.

Serves one page on two ports of loopback, of which the gateway's tenant lists the first. The page
runs the fetch loop of the widget's documentation over HTTP/1.1 and, under TLS, over HTTP/2, puts
the words on screen as they come, and reports what it saw to the server that it came from. Needs
chromium (Debian; installed in CI).
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.ci.chromium import Page, Visit, visit
from tests.ci.debian import find_or_install
from tests.ci.table import Table
from tests.e2e.config import key_of, tenant
from tests.e2e.world import open_world
from tests.upstream import Sleep, openai_stream

WORDS: Final = ("Chat ", "from ", "another ", "origin: ", "日本 ", "🧑‍🚀")
PLAIN: Final = "HTTP/1.1"
TLS: Final = "HTTP/2"
SPOKEN: Final = {PLAIN: "http/1.1", TLS: "h2"}
PAGE: Final = """<!doctype html><meta charset="utf-8"><title>Shop</title><p id="reply"></p>
<script>
const gateways = %(gateways)s, key = %(key)s;
async function ask(gateway, credential) {
  const seen = { text: "", reads: 0, status: 0, requestId: null, error: null };
  document.getElementById("reply").textContent = "";
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
  const report = {};
  for (const [name, gateway] of Object.entries(gateways)) {
    report[name] = { good: await ask(gateway, key), bad: await ask(gateway, "wrong") };
  }
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
})();
</script>"""


def checks(
    seen: Visit, stranger: Visit, urls: Mapping[str, str], calls: int
) -> Iterator[tuple[str, bool]]:
    """What has to be so, in words, and whether it is."""
    yield "one call reached the model for each message of the listed page", calls == len(urls)
    for name, url in urls.items():
        good, bad = _asked(seen, name, "good"), _asked(seen, name, "bad")
        reads = good["reads"]
        yield f"{name}: the browser spoke it", seen.spoken.get(url) == {SPOKEN[name]}
        yield (
            f"{name}: the listed page shows every word",
            good["text"] == "".join(WORDS) and not good["error"],
        )
        yield (
            f"{name}: the words came one after another",
            isinstance(reads, int) and reads > len(WORDS) / 2,
        )
        yield f"{name}: the page can read the request id", bool(good["requestId"])
        refused = (bad["status"], bad["text"]) == (401, '{"error":"Unauthorized"}')
        yield f"{name}: the page can read a refusal", refused
        for kind in ("good", "bad"):
            alone = _asked(stranger, name, kind)["error"] == "TypeError"
            yield f"{name}: the other page can read nothing ({kind} key)", alone


def _asked(visit: Visit, name: str, key: str) -> dict[str, object]:
    assert isinstance(visit.report, dict)
    asked = visit.report[name][key]
    assert isinstance(asked, dict)
    return asked


async def check(browser: str) -> int:
    """The exit status."""
    listed, other = Page(), Page()
    runners = [await listed.start(), await other.start()]
    table = Table("browser")
    try:
        with tempfile.TemporaryDirectory() as directory:
            section = tenant("acme", cors_origins=[listed.origin])
            tenants = {"acme": section}
            async with open_world(Path(directory), tenants=tenants, tls=True) as world:
                urls = {PLAIN: world.url, TLS: world.tls_url}
                for page in (listed, other):
                    page.html = PAGE % {
                        "gateways": json.dumps(urls),
                        "key": json.dumps(key_of("acme", "widget")),
                    }
                # A browser joins what comes within a few milliseconds.
                events = openai_stream(WORDS)
                for _ in urls:
                    world.play(*(step for event in events for step in (event, Sleep(0.05))))
                seen = await visit(browser, listed, world.ca_file)
                stranger = await visit(browser, other, world.ca_file)
                for name, good in checks(seen, stranger, urls, world.calls):
                    table.row("Chromium", name, good=good, saw=(seen, stranger))
    finally:
        for runner in runners:
            await runner.cleanup()
    return table.close()


def main() -> int:
    """The exit status; 0 if there is no browser and none may be installed."""
    browser = find_or_install("chromium", "chromium")
    return 0 if browser is None else asyncio.run(check(browser))


if __name__ == "__main__":
    sys.exit(main())
