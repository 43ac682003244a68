"""`fetch` in Node: Node's own over HTTP/1.1 and undici's over HTTP/2, with and without a parser.

Server-sent events are taken apart by `eventsource-parser`, as most pages do it.
"""

from dataclasses import asdict
from typing import Final

from tests.clients import node, raw
from tests.clients.cases import CASES, Case, Fact
from tests.clients.grid import Client, Grid
from tests.clients.reading import from_events, read
from tests.clients.stage import Stage
from tests.clients.wires import WIRES, Seen

_PARSED: Final = ("hyponema", "hyperleap sse", "helper v5")
_PARSER_BLIND: Final = raw.BLIND | frozenset[Fact]({"kept_alive"})


async def check(stage: Stage, grid: Grid) -> None:
    """Every case with and without the parser, over both versions of HTTP."""
    clients = [
        *(
            Client("eventsource-parser 3.1.1", http, wire, _PARSER_BLIND)
            for wire in _PARSED
            for http in node.VERSIONS
        ),
        *(
            Client(name, http, wire, raw.BLIND)
            for name, http in zip(("Node fetch", "undici 7.30.2 fetch"), node.VERSIONS, strict=True)
            for wire in raw.NAMES
        ),
    ]
    jobs = {client.row: [await _job(stage, client, case) for case in CASES] for client in clients}
    rows = await node.seen_by(("fetch.mjs",), jobs)
    for client in clients:
        seen = rows.get(client.row, {})
        grid.add(client, {case: _seen(client.wire, answer) for case, answer in seen.items()})


async def _job(stage: Stage, client: Client, case: Case) -> dict[str, object]:
    wire = WIRES[client.wire]
    job = await stage.job(case, wire)
    request = stage.request(case, wire, job)
    fetched = {
        "path": request.path,
        "method": request.method,
        "headers": dict(request.headers),
        "body": request.body.decode(),
    }
    return {**asdict(job), "request": fetched, "parsed": client.name.startswith("eventsource")}


def _seen(wire: str, answer: Seen) -> Seen:
    if "crashed" in answer:
        return answer
    status = answer["status"]
    assert isinstance(status, int)
    if "body" in answer:
        return read(wire, status, str(answer["body"]).encode())
    events = answer["events"]
    assert isinstance(events, list)
    return {**from_events(wire.removesuffix(" sse"), events), "status": status}
