"""A visitor's whole way with the published Helper client, over both versions of HTTP."""

from collections import Counter
from dataclasses import asdict
from typing import Final

from tests.ci.table import Table
from tests.clients import node
from tests.clients.cases import CASES
from tests.clients.stage import Stage
from tests.clients.wires import WIRES

NAME: Final = "@helperai/client 0.4.5"
TURNS: Final = Counter({"1.1": 2, "2": 2})
"""How many turns it takes, by version of HTTP."""


async def check(stage: Stage, table: Table) -> None:
    """A row a step."""
    case = CASES[0]
    jobs = {
        f"{NAME}, {http}": [
            {**asdict(await stage.job(case, WIRES["helper v4"])), "answer": case.text}
        ]
        for http in node.VERSIONS
    }
    for row, seen in (await node.seen_by(("helper-journey.mjs",), jobs)).items():
        steps = seen[case.name].get("steps") if isinstance(seen[case.name], dict) else None
        if not isinstance(steps, list):
            table.row(row, "comes to its end", good=False, saw=seen)
            continue
        for name, came, wanted in steps:
            table.row(row, name, good=came == wanted, saw=(came, wanted))
