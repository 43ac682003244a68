"""Whole ways with published clients, over both versions of HTTP.

A visitor's with the Helper client, from the session to the second turn; and a turn with tools that
run in the client, with that client and with the chats of AI SDK 5 and later.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from tests.ci.table import Table
from tests.clients import node
from tests.clients.cases import BY_WORD, CASES, Case
from tests.clients.stage import TOOLS_GAVE, Stage
from tests.clients.wires import WIRES

NAME: Final = "@helperai/client 0.4.5"
_MAJORS: Final = (5, 6, 7)
TURNS: Final = Counter(dict.fromkeys(("1.1", "2"), 2 + 2 * (1 + len(_MAJORS))))
"""How many turns they take, by version of HTTP."""


async def check(stage: Stage, table: Table) -> None:
    """A row a step."""
    await _visitor(stage, table)
    await _tools(stage, table)


async def _visitor(stage: Stage, table: Table) -> None:
    case = CASES[0]
    more = {"answer": case.text}
    await _walk(stage, table, (NAME, "helper v4", case), ("helper-journey.mjs",), more)


async def _tools(stage: Stage, table: Table) -> None:
    case = BY_WORD["tools"]
    more = {"answers": [case.text, TOOLS_GAVE]}
    script = "own-tools.mjs"
    await _walk(stage, table, (f"{NAME}, own tools", "helper v4", case), (script,), more)
    for major in _MAJORS:
        what = (f"AI SDK {major} Chat, own tools", "helper v5", case)
        await _walk(stage, table, what, (script, str(major)), more)


async def _walk(
    stage: Stage,
    table: Table,
    what: tuple[str, str, Case],
    script: Sequence[str],
    more: Mapping[str, object],
) -> None:
    name, wire, case = what
    jobs = {
        f"{name}, {http}": [{**asdict(await stage.job(case, WIRES[wire])), **more}]
        for http in node.VERSIONS
    }
    for row, seen in (await node.seen_by(script, jobs)).items():
        steps = seen[case.name].get("steps") if isinstance(seen[case.name], dict) else None
        if not isinstance(steps, list):
            table.row(row, "comes to its end", good=False, saw=seen)
            continue
        for step, came, wanted in steps:
            table.row(row, step, good=came == wanted, saw=(came, wanted))
