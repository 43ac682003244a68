"""Chromium, on pages of three origins, asks a gateway in every dialect: CORS as browsers see it.

One origin is listed by the tenant whose credentials all pages have, one only by another tenant, so
that its preflights are allowed and its requests refused, and one by nobody. The tenant `open`
lists no origins, which opens helper to every page. Each page asks over HTTP/1.1 and, under TLS,
over HTTP/2, with every header that a client may send, and reports what the browser let it read to
the server that it came from. Needs chromium (Debian; installed in CI).
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from gateway.readers import Broken
from tests.ci.chromium import Page, Visit, visit
from tests.ci.debian import find_or_install
from tests.ci.table import Table
from tests.e2e.config import admin_key_of, tenant
from tests.e2e.neighbours import KEYED
from tests.e2e.refusals import REFUSALS, words
from tests.e2e.routes import HYPONEMA, STREAMING, Chat
from tests.e2e.wire import Answer, Request
from tests.e2e.world import World, open_world, read
from tests.model_streams import openai_stream
from tests.upstream import Sleep

WORDS: Final = ("Chat ", "from ", "another ", "origin: ", "日本 ", "🧑‍🚀")
PLAIN: Final = "HTTP/1.1"
TLS: Final = "HTTP/2"
LISTED_BY_ANOTHER: Final = "that another tenant lists"
STRANGERS: Final = "that nobody lists"
SPOKEN: Final = {PLAIN: "http/1.1", TLS: "h2"}
TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# Asked without a credential: the first thing that helper's widget does.
SESSION: Final = Request(
    "POST",
    "/api/widget/session",
    (("content-type", "application/json"),),
    b'{"mailboxSlug": "acme"}',
)
PAGE: Final = """<!doctype html><meta charset="utf-8"><title>Shop</title>
<script>
const jobs = %(jobs)s, report = {};
async function ask({ name, url, request }) {
  const seen = report[name] = { status: 0, text: "", reads: 0, id: null, wait: null, error: null };
  try {
    const response = await fetch(url, request);
    seen.status = response.status;
    seen.id = response.headers.get("x-request-id");
    seen.wait = response.headers.get("retry-after");
    const reader = response.body.getReader(), decoder = new TextDecoder();
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
      seen.reads += 1;
      seen.text += decoder.decode(value, { stream: true });
    }
  } catch (error) {
    seen.error = error.name;
  }
}
async function work() {
  for (let next = jobs.shift(); next !== undefined; next = jobs.shift()) await ask(next);
}
(async () => {
  await Promise.all(Array.from({ length: 6 }, work));
  await fetch("/report", { method: "POST", body: JSON.stringify(report) });
})();
</script>"""


@dataclass(frozen=True)
class Read:
    """What a page could read of one answer; `error` is what `fetch` threw instead."""

    status: int
    text: str
    reads: int
    id: str | None
    wait: str | None
    error: str | None

    @property
    def nothing(self) -> bool:
        """Whether the browser kept all of it from the page."""
        return (self.status, self.text, self.error) == (0, "", "TypeError")

    def answer(self) -> Answer:
        """The answer, for the readers of the tests."""
        headers = [("content-type", "application/json"), ("x-request-id", self.id or "")]
        return Answer(self.status, headers, [self.text.encode()], ended=True)


class Check(NamedTuple):
    """Where something has to be so, what, whether it is, and what was seen of it."""

    where: str
    what: str
    good: bool
    saw: object


class Pages:
    """The three origins, by name, and what their pages saw."""

    def __init__(self) -> None:
        self.pages = {name: Page() for name in ("listed", LISTED_BY_ANOTHER, STRANGERS)}
        self.visits: dict[str, Visit] = {}

    def read(self, page: str, job: str) -> Read:
        """What this page could read of the answer to that job."""
        report = self.visits[page].report
        assert isinstance(report, dict)
        return Read(**report[job])


async def jobs_of(world: World, page: str) -> list[dict[str, object]]:
    """Every request that a page makes, as `fetch` takes it."""
    jobs = []
    for http, url in _urls(world).items():
        for chat in STREAMING:
            for who in ("acme", "open", "spent"):
                conversation = "c" if who == "spent" else await world.conversation(chat, tenant=who)
                request = chat.request(conversation, "Hi", tenant=who)
                jobs.append(_job(page, f"{http} {chat.id} {who}", url, request))
            wrong = chat.request("c", "Hi", credential="Bearer wrong")
            jobs.append(_job(page, f"{http} {chat.id} wrong", url, wrong))
        for neighbour in KEYED:
            jobs.append(_job(page, f"{http} {neighbour.id}", url, neighbour.request()))
        jobs.append(_job(page, f"{http} session", url, SESSION))
    return jobs


def _urls(world: World) -> dict[str, str]:
    return {PLAIN: world.url, TLS: world.tls_url}


def _job(page: str, name: str, url: str, request: Request) -> dict[str, object]:
    mark = _mark(page, name)
    more = {"idempotency-key": mark, "x-request-id": mark, "traceparent": TRACE}
    fetched: dict[str, object] = {
        "method": request.method,
        "headers": {**dict(request.headers), **more},
    }
    if request.body:
        fetched["body"] = request.body.decode()
    return {"name": name, "url": url + request.path, "request": fetched}


def _mark(page: str, job: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in f"{page} {job}")


def checks(pages: Pages, urls: dict[str, str]) -> Iterator[Check]:
    """What has to be so."""
    for http, url in urls.items():
        spoken = [visit.spoken.get(url) for visit in pages.visits.values()]
        good = spoken == [{SPOKEN[http]}] * len(spoken)
        yield Check(http, "the browser spoke it", good, spoken)
        for chat in STREAMING:
            yield from _of_chat(pages, chat, f"{http} {chat.id}")
        others = [f"{http} {neighbour.id}" for neighbour in KEYED] + [f"{http} session"]
        seen = [pages.read("listed", job) for job in others]
        told = all(it.id and it.status in {200, 201, 404} for it in seen)
        yield Check(f"{http} beside the chats", "a listed page reads all answers", told, seen)
        for page in (LISTED_BY_ANOTHER, STRANGERS):
            seen = [pages.read(page, job) for job in others]
            nothing = all(it.nothing for it in seen)
            yield Check(f"{http} beside the chats", f"a page {page} reads nothing", nothing, seen)


def _of_chat(pages: Pages, chat: Chat, job: str) -> Iterator[Check]:
    seen = pages.read("listed", f"{job} acme")
    yield Check(job, "a listed page reads every word", _told(chat, seen), seen)
    yield Check(job, "the words come one after another", seen.reads > len(WORDS) / 2, seen)
    yield Check(job, "it reads the request id", seen.id == _mark("listed", f"{job} acme"), seen)
    seen = pages.read("listed", f"{job} wrong")
    yield Check(job, "it reads a refusal", _refused(chat, seen, "unauthorized"), seen)
    seen = pages.read("listed", f"{job} spent")
    timed = _refused(chat, seen, "rate_limited") and int(seen.wait or 0) > 0
    yield Check(job, "it reads when to try again", timed, seen)
    for page in (LISTED_BY_ANOTHER, STRANGERS):
        for who in ("acme", "spent"):
            seen = pages.read(page, f"{job} {who}")
            yield Check(job, f"a page {page} reads nothing of {who}", seen.nothing, seen)
        seen = pages.read(page, f"{job} open")
        everybodys = chat.dialect == "helper"
        what = f"a page {page} reads {'what' if everybodys else 'nothing of what'} lists nobody"
        yield Check(job, what, _told(chat, seen) if everybodys else seen.nothing, seen)


def _told(chat: Chat, seen: Read) -> bool:
    if seen.status != 200:
        return False
    try:
        reader = read(chat, seen.answer())
    except Broken:
        return False
    return reader.text == "".join(WORDS) and reader.terminals == ["ok"]


def _refused(chat: Chat, seen: Read, kind: str) -> bool:
    wanted = REFUSALS[kind][chat.dialect]
    same = seen.status == wanted.status
    return same and words(chat.dialect, seen.answer()) == wanted.words


async def check(browser: str) -> int:
    """The exit status."""
    pages, table = Pages(), Table("browser")
    runners = [await page.start() for page in pages.pages.values()]
    listed, other = [pages.pages[name].origin for name in ("listed", LISTED_BY_ANOTHER)]
    tenants = {
        "acme": tenant(
            "acme",
            cors_origins=[listed],
            dialects={
                "widget": {"admin_key": admin_key_of("acme")},
                "hyponema": {"agents": {"agent_waiter": "waiter"}},
                "hyperleap": {"personas": {"agent_waiter": "waiter"}},
            },
        ),
        "spent": tenant("spent", cors_origins=[listed], requests_per_minute=1),
        "other": tenant("other", cors_origins=[other]),
        "open": tenant("open", cors_origins=None),
    }
    try:
        with tempfile.TemporaryDirectory() as directory:
            async with open_world(Path(directory), tenants=tenants, tls=True) as world:
                await world.send(HYPONEMA.request("c", "Hi", tenant="spent").carrying(b""))
                calls = await _visit_all(browser, world, pages)
                table.row(
                    "Chromium", "calls of the model", good=world.calls == calls, saw=world.calls
                )
                for it in checks(pages, _urls(world)):
                    table.row(it.where, it.what, good=it.good, saw=it.saw)
    finally:
        for runner in runners:
            await runner.cleanup()
    return table.close()


async def _visit_all(browser: str, world: World, pages: Pages) -> int:
    """Lets every page ask; how many calls the model has to have got."""
    # A browser joins what comes within a few milliseconds.
    steps = [step for event in openai_stream(WORDS) for step in (event, Sleep(0.05))]
    helpers = [chat for chat in STREAMING if chat.dialect == "helper"]
    calls = 2 * (len(STREAMING) + len(pages.pages) * len(helpers))
    for _ in range(calls):
        world.play(*steps)
    for name, page in pages.pages.items():
        page.html = PAGE % {"jobs": json.dumps(await jobs_of(world, name))}
        pages.visits[name] = await visit(browser, page, world.ca_file)
    return calls


def main() -> int:
    """The exit status; 0 if there is no browser and none may be installed."""
    browser = find_or_install("chromium", "chromium")
    return 0 if browser is None else asyncio.run(check(browser))


if __name__ == "__main__":
    sys.exit(main())
