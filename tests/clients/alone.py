"""Loops that understand each read by itself, in a page of another origin in Chromium.

The widget's document prints such a loop; the page of Hyperleap's that the public can see has one
too: it takes a read for whole items once its first character is off, and `]` alone for the end.
A browser joins what comes while it is busy, so each case has three tries. Replies of more than a
browser hands over at once are left out: no server can help such a loop with them.
"""

import json
from collections import Counter
from typing import Final

from tests.ci.chromium import Page, visit
from tests.ci.table import Table
from tests.clients.cases import CASES, Case
from tests.clients.stage import Stage
from tests.clients.wires import WIRES
from tests.e2e.tls import CERTIFICATE

TRIES: Final = 3
TOLD: Final = tuple(case for case in CASES if case.failure is None and case.name != "very long")
PAGE: Final = """<!doctype html><meta charset="utf-8"><title>Shop</title>
<script>
const jobs = %(jobs)s;
const loops = {
  widget: (read) => read.split("\\n").filter((line) => line.trim())
    .map((line) => JSON.parse(line).token ?? ""),
  hyperleap: (read) => ["]", "\\n"].includes(read) ? [] :
    JSON.parse("[" + read.slice(1) + "]").map((item) => item.choice.message.content),
};
async function ask({ wire, url, request }) {
  const reader = (await fetch(url, request)).body.getReader(), decoder = new TextDecoder();
  let text = "", lost = 0;
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    try {
      text += loops[wire](decoder.decode(value)).join("");
    } catch {
      lost += 1;
    }
  }
  return { text, lost };
}
(async () => {
  const report = {};
  for (const job of jobs) {
    for (let tries = 1; tries <= %(tries)d && report[job.name]?.lost !== 0; tries += 1) {
      const seen = await ask(job).catch((error) => ({ text: String(error), lost: -1 }));
      report[job.name] = { ...seen, tries };
    }
  }
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
})();
</script>"""


async def check(stage: Stage, table: Table, browser: str, page: Page, turns: Counter[str]) -> None:
    """A row a wire and version of HTTP; the turns that it takes are added to `turns`."""
    rows = [(wire, http) for wire in ("hyperleap", "widget") for http in ("1.1", "2 TLS")]
    jobs = [await _job(stage, wire, http, case) for wire, http in rows for case in TOLD]
    page.html = PAGE % {"jobs": json.dumps(jobs), "tries": TRIES}
    report = (await visit(browser, page, CERTIFICATE)).report
    assert isinstance(report, dict)
    for wire, http in rows:
        seen = {case.name: report[_name(wire, http, case)] for case in TOLD}
        turns[http.split()[0]] += sum(read.pop("tries") for read in seen.values())
        wanted = {case.name: {"text": case.text, "lost": 0} for case in TOLD}
        wrong = {name: read for name, read in seen.items() if read != wanted[name]}
        told = f"{wire}, {http}: each read by itself"
        table.row("Chromium", told, good=not wrong, saw=wrong)


def _name(wire: str, http: str, case: Case) -> str:
    return f"{wire}, {http}, {case.name}"


async def _job(stage: Stage, wire: str, http: str, case: Case) -> dict[str, object]:
    job = await stage.job(case, WIRES[wire])
    request = stage.request(case, WIRES[wire], job)
    return {
        "name": _name(wire, http, case),
        "wire": wire,
        "url": (job.url if http == "1.1" else job.tls_url) + request.path,
        "request": {
            "method": request.method,
            "headers": dict(request.headers),
            "body": request.body.decode(),
        },
    }
