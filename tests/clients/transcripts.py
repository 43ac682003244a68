"""Every golden UI message stream, read by the first and the last release of each AI SDK major.

What the SDK shows must be what the project's own reader recovers, and an error exactly where the
turn failed.
"""

import json
import tempfile
from pathlib import Path
from typing import Final

from gateway.readers.helper import UiMessageReader
from tests.ci.table import Table
from tests.clients.node import script
from tests.golden import FOLDER

VERSIONS: Final = {
    "ai5-first": "5.0.0",
    "ai5": "5.0.277",
    "ai6-first": "6.0.0",
    "ai6": "6.0.326",
    "ai7-first": "7.0.0",
    "ai7": "7.0.173",
}
FILES: Final = sorted((FOLDER / "helper").glob("*.ui-message-stream.sse"))


async def check(table: Table) -> None:
    """A row per release."""
    wanted = [_expected(file) for file in FILES]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as bodies:
        json.dump([{"name": file.name, "body": file.read_text()} for file in FILES], bodies)
        bodies.flush()
        for package, version in VERSIONS.items():
            seen = await script(("transcripts.mjs", package, bodies.name), {})
            results = seen.get("results", seen)
            wrong: object = results
            if isinstance(results, list):
                got = [(r["name"], r["text"], bool(r["error"])) for r in results]
                wrong = [pair for pair in zip(wanted, got, strict=True) if pair[0] != pair[1]]
            case = f"{len(wanted)} golden streams"
            table.row(f"AI SDK {version} reader", case, good=wrong == [], saw=wrong)


def _expected(file: Path) -> tuple[str, str, bool]:
    reader = UiMessageReader()
    reader.feed(file.read_bytes())
    reader.close()
    return file.name, reader.text, reader.terminals == ["error"]
