"""The samples printed in the vendors' documents, run as they are printed.

Filled in, by rule: the host, the placeholders of key and id, the variables that a sample takes
from outside, and the indentation that the Python sample has lost. The Helper document prints no
code. What a sample prints is what it saw.
"""

import asyncio
import builtins
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import httpx

from tests.clients import node, raw
from tests.clients.cases import CASES, Case, Fact
from tests.clients.grid import Client, Grid
from tests.clients.reading import read
from tests.clients.stage import Job, Stage
from tests.clients.wires import WIRES, Seen, Wire
from tests.e2e.tls import CERTIFICATE, client_context

FOLDER: Final = Path(__file__).parents[1] / "contracts" / "samples"
BLIND: Final = raw.BLIND | frozenset[Fact]({"status"})
_TERMINAL: Final = BLIND | frozenset[Fact]({"kept_alive"})
_ON_HTTPX: Final = f"widget document, Python on httpx {httpx.__version__}"
_REFUSED: Final = "error before the stream"
_UNREAD: Final[dict[str, tuple[str, Seen]]] = {
    _REFUSED: ("b", {"text": "", "error": None}),
    "very long": ("c", {"error": "SyntaxError"}),
}
_WIDGET_PRINTS: Final = re.compile(
    r"(?:Stream started: [a-z0-9]{32}\n(?P<streamed>.*?)"
    r"(?:\nComplete message: (?P<message>.*)\n|Error: (?P<error>.*)\n))?",
    re.DOTALL,
)
CURLRC: Final = {
    "1.1": "http1.1\n",
    "2": "http2-prior-knowledge\n",
    "2 TLS": f"http2\ncacert = {CERTIFICATE}\n",
}


def filled(name: str, job: Job, url: str) -> str:
    """The printed sample with host, key and id in place."""
    given = {
        "https://api.hyponema.ai": url,
        "https://api.hyperleapai.com": url,
        "https://your-api-domain.com": url,
        "https://api.example.com": url,
        "{conversationId}": job.conversation,
        "<api-key>": job.credential,
        "your-api-key-here": job.credential,
        "user-123": job.conversation,
    }
    text = (FOLDER / f"{name}.txt").read_text()
    for printed, value in given.items():
        text = text.replace(printed, value)
    return text


def indented(text: str) -> str:
    """Python that has lost its indentation: a colon at a line's end opens a block, `elif` closes
    one, brackets keep theirs, and nothing else ends a block before the end of the sample."""
    depth, brackets, lines = 0, 0, []
    for line in text.splitlines():
        if line.startswith("elif "):
            depth -= 1
        lines.append("    " * depth + line)
        brackets += sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))
        if line.endswith(":") and brackets == 0:
            depth += 1
    return "\n".join(lines)


async def check(stage: Stage, grid: Grid, *, npm: bool) -> None:
    """Every case with every sample."""
    await _python(stage, grid)
    await _curl(stage, grid)
    if npm:
        await _javascript(stage, grid)


async def _python(stage: Stage, grid: Grid) -> None:
    # It looks at no status either, but at a member that a refusal does not have.
    instead: dict[tuple[str, Fact], object] = {(_REFUSED, "error"): "KeyError('type')"}
    rows = {"1.1": "widget document, Python", **dict.fromkeys(("2", "2 TLS"), _ON_HTTPX)}
    for http, name in rows.items():
        client = Client(name, http, "widget", _TERMINAL, instead)
        grid.add(client, await raw.row(client, partial(_one_python, http), stage))


async def _one_python(http: str, stage: Stage, case: Case, wire: Wire) -> Seen:
    job = await stage.job(case, wire)
    code = filled("widget-loop.py", job, job.tls_url if http.endswith("TLS") else job.url)
    if http == "1.1":
        return await asyncio.to_thread(_run_python, code, __import__)
    with httpx.Client(http1=False, http2=True, verify=client_context(), trust_env=False) as client:
        return await asyncio.to_thread(_run_python, code, partial(_import_httpx, client))


def _import_httpx(client: httpx.Client, name: str, *_: object) -> object:
    """`import`, with `requests` over HTTP/2, which that library does not speak."""

    def post(url: str, *, headers: dict[str, str], json: object, stream: bool) -> httpx.Response:
        return client.send(
            client.build_request("POST", url, headers=headers, json=json), stream=stream
        )

    return SimpleNamespace(post=post) if name == "requests" else import_module(name)


def _run_python(code: str, importing: Callable[..., object]) -> Seen:
    printed: list[str] = []

    def prints(text: str, end: str = "\n", *, flush: bool = False) -> None:
        printed.append(text + end)

    try:
        known = {**vars(builtins), "__import__": importing}
        exec(indented(code), {"print": prints, "__builtins__": known})
    except Exception as error:  # what a reader of the document would find in the terminal
        return {"text": "", "streamed": "", "error": repr(error)}
    return _widget("".join(printed))


async def _curl(stage: Stage, grid: Grid) -> None:
    if shutil.which("curl") is None:
        return  # `raw` has said so
    with tempfile.TemporaryDirectory() as home:
        file = Path(home, ".curlrc")
        for http, options in CURLRC.items():
            file.write_text(options)
            clients = [
                Client("hyperleap document, curl", http, "hyperleap", BLIND),
                Client("widget document, curl", http, "widget", BLIND),
            ]
            rows = (raw.row(each, partial(_one_curl, home, each), stage) for each in clients)
            for client, seen in zip(clients, await asyncio.gather(*rows), strict=True):
                grid.add(client, seen)
        job = await stage.job(CASES[0], WIRES["widget"])
        printed = await _shell(filled("widget-reference.sh", job, job.url), home)
    good = printed == b'{"error":"Unauthorized"}'
    grid.table.row("widget document, curl of the reference", "no key: 401", good=good, saw=printed)


async def _one_curl(home: str, client: Client, stage: Stage, case: Case, wire: Wire) -> Seen:
    job = await stage.job(case, wire)
    url = job.tls_url if client.http.endswith("TLS") else job.url
    printed = await _shell(filled(f"{client.wire}-request.sh", job, url), home)
    return read(client.wire, wire.status if printed.startswith(b'{"error"') else 200, printed)


async def _shell(command: str, home: str) -> bytes:
    """The output of a shell command whose curl finds its options in `home`."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", command),
        env={**os.environ, "CURL_HOME": home},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        printed, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    return printed


async def _javascript(stage: Stage, grid: Grid) -> None:
    clients = [
        *(
            Client("hyponema document, JavaScript", http, "hyponema", BLIND)
            for http in node.VERSIONS
        ),
        *(
            Client("widget document, JavaScript", http, "widget", _TERMINAL, unread=_UNREAD)
            for http in node.VERSIONS
        ),
    ]
    jobs = {
        client.row: [await _script(stage, client, case) for case in CASES] for client in clients
    }
    rows = await node.seen_by(("samples.mjs",), jobs)
    for client in clients:
        seen = rows.get(client.row, {})
        grid.add(client, {case: _printed(client.wire, shown) for case, shown in seen.items()})


async def _script(stage: Stage, client: Client, case: Case) -> dict[str, object]:
    job = await stage.job(case, WIRES[client.wire])
    url = job.tls_url if client.http.endswith("TLS") else job.url
    code = filled(f"{client.wire}-loop.js", job, url)
    return {**asdict(job), "code": code, "environment": {"HYPONEMA_API_KEY": job.credential}}


def _printed(wire: str, seen: Seen) -> Seen:
    if "crashed" in seen:
        return seen
    printed = seen["printed"]
    assert isinstance(printed, list)
    text = "".join(words for _, words in printed)
    if printed and printed[-1][0] == "thrown":
        return {"error": printed[-1][1]}
    if wire == "widget":
        return _widget(text)
    return read(wire, WIRES[wire].status if text.startswith("{") else 200, text.encode())


def _widget(printed: str) -> Seen:
    """What stands in the terminal of somebody who runs a loop of the widget's document."""
    found = _WIDGET_PRINTS.fullmatch(printed)
    if found is None:
        return {"crashed": f"printed {printed[:300]!r}"}
    streamed = found["streamed"] or ""
    message = found["message"]
    text = streamed if message is None else message
    return {"text": text, "streamed": streamed, "error": found["error"]}
