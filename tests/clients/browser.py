"""Chromium's `fetch` from a page of another origin, over TLS and therefore HTTP/2.

Every case on every wire in one visit. The page hands over what CORS lets it read; the browser
itself says which protocol it spoke.
"""

import json
import subprocess
from typing import Final

from tests.ci.chromium import Page, visit
from tests.ci.debian import find_or_install
from tests.ci.table import Table
from tests.clients import raw
from tests.clients.cases import CASES, Case
from tests.clients.grid import Client, Grid
from tests.clients.reading import read
from tests.clients.stage import Stage
from tests.clients.wires import WIRES, Seen
from tests.e2e.tls import CERTIFICATE

PAGE: Final = """<!doctype html><meta charset="utf-8"><title>Shop</title>
<script>
const jobs = %(jobs)s, results = [];
async function ask({ row, case: name, url, request }) {
  const seen = { row, case: name };
  try {
    const response = await fetch(url, request);
    seen.status = response.status;
    seen.body = await response.text();
    seen.id = response.headers.get("x-request-id");
  } catch (error) {
    seen.crashed = String(error);
  }
  results.push(seen);
}
async function work() {
  for (let next = jobs.shift(); next !== undefined; next = jobs.shift()) await ask(next);
}
(async () => {
  await Promise.all(Array.from({ length: 6 }, work));
  await fetch("/report", { method: "POST", body: JSON.stringify(results) });
})();
</script>"""


def ready(table: Table) -> str | None:
    """The browser's path, if there is one; installs it in CI."""
    try:
        found = find_or_install("chromium", "chromium")
    except subprocess.CalledProcessError as error:
        table.row("apt-get", "installs chromium", good=False, saw=error)
        return None
    if found is None:
        table.leave_out("Chromium", "chromium")
    return found


async def check(stage: Stage, grid: Grid, browser: str, page: Page) -> None:
    """A row a wire."""
    clients = [Client("Chromium fetch", "2 TLS", wire, raw.BLIND) for wire in raw.NAMES]
    jobs = [await _job(stage, client, case) for client in clients for case in CASES]
    page.html = PAGE % {"jobs": json.dumps(jobs)}
    seen_by_page = await visit(browser, page, CERTIFICATE)
    assert isinstance(seen_by_page.report, list)
    seen: dict[str, dict[str, Seen]] = {client.row: {} for client in clients}
    for answer in seen_by_page.report:
        wire = next(client.wire for client in clients if client.row == answer["row"])
        seen[answer["row"]][answer["case"]] = _seen(wire, answer)
    for client in clients:
        grid.add(client, seen[client.row])
    urls = {stage.world(case).tls_url for case in CASES}
    spoken = {url: seen_by_page.spoken.get(url) for url in urls}
    good = spoken == {url: {"h2"} for url in urls}
    grid.table.row("Chromium fetch", "the browser says h2", good=good, saw=spoken)


async def _job(stage: Stage, client: Client, case: Case) -> dict[str, object]:
    wire = WIRES[client.wire]
    job = await stage.job(case, wire)
    request = stage.request(case, wire, job)
    fetched = {
        "method": request.method,
        "headers": dict(request.headers),
        "body": request.body.decode(),
    }
    url = job.tls_url + request.path
    return {"row": client.row, "case": job.case, "url": url, "request": fetched}


def _seen(wire: str, answer: Seen) -> Seen:
    if "crashed" in answer:
        return answer
    if not answer["id"]:
        return {"crashed": "the page cannot read the request id"}
    status = answer["status"]
    assert isinstance(status, int)
    return read(wire, status, str(answer["body"]).encode())
