import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]

# Contract -> imports that it has to refuse: the file that gets the line, and the line.
VIOLATIONS: Final = {
    "codecs-are-sans-io": (
        ("dialects/widget.py", "import asyncio"),
        ("dialects/helper.py", "from uuid import uuid4"),
        ("framing/ndjson.py", "import logging"),
        ("upstreams/openai.py", "import aiohttp"),
        ("upstreams/anthropic.py", "from time import monotonic"),
        ("turn/reply.py", "import secrets"),
        ("turn/tally.py", "import gateway.telemetry.metrics"),
        ("grammar.py", "import random"),
        ("messages.py", "import structlog"),
        ("errors.py", "import socket"),
    ),
    "dialects-are-apart": (
        ("dialects/widget.py", "from gateway.dialects import helper"),
        ("dialects/hyponema.py", "import gateway.dialects.hyperleap"),
    ),
    "helper-streams-are-helpers": (
        ("dialects/widget.py", "import gateway.dialects.helper_streams"),
    ),
    "hyperleap-schema-is-hyperleaps": (
        ("dialects/hyponema.py", "from gateway.dialects import hyperleap_schema"),
    ),
    "upstreams-are-apart": (("upstreams/openai.py", "import gateway.upstreams.anthropic"),),
    "framing-has-no-meaning": (
        ("framing/jsonarray.py", "from gateway.events import TextDelta"),
        ("framing/ndjson.py", "import gateway.messages"),
    ),
    "readers-know-no-encoder": (("readers/widget.py", "import gateway.framing.ndjson"),),
    "concrete-parts-have-one-user": (
        ("turn/engine.py", "from gateway.dialects import widget"),
        ("turn/engine.py", "import gateway.stores"),
        ("web/app.py", "from gateway.upstreams import openai"),
        ("web/chat.py", "import gateway.neighbours"),
        ("web/operators.py", "import gateway.openapi"),
        ("transport/client.py", "import gateway.upstreams.openai"),
        ("telemetry/metrics.py", "from gateway.dialects import DIALECTS"),
        ("serving/server.py", "import gateway.stores.memory"),
    ),
    "wiring-has-few-users": (("web/app.py", "from gateway import wiring"),),
    "settings-have-few-readers": (
        ("web/app.py", "from gateway.settings import model"),
        ("turn/engine.py", "import gateway.settings.model"),
    ),
    "nothing-imports-the-command-line": (("serving/server.py", "import gateway.cli"),),
}


ROWS: Final = [(contract, *row) for contract, rows in VIOLATIONS.items() for row in rows]

# Lints the tree as it is, and with each line at the end of its file, in one process.
LINT: Final = """
import json, sys
from pathlib import Path
from importlinter.cli import lint_imports

def lint():
    failed = lint_imports(no_cache=True, no_logo=True)
    print("exit status", failed, flush=True)

lint()
for file, line in json.load(sys.stdin):
    path = Path("gateway", file)
    text = path.read_text()
    path.write_text(text + chr(10) + line + chr(10))
    lint()
    path.write_text(text)
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bool]]:
    """Contract -> whether it is kept: as the tree is, and with each of `ROWS`."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gateway", tree / "gateway", ignore=ignored)
    shutil.copy(ROOT / ".importlinter", tree)
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200", "NO_COLOR": "1"},
        input=json.dumps([row[1:] for row in ROWS]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = re.findall(r"(.*?)^exit status (\d)$", done.stdout, re.MULTILINE | re.DOTALL)
    return [judged(printed, int(status)) for printed, status in runs]


def judged(printed: str, status: int) -> dict[str, bool]:
    names = {name: contract for contract, name in contracts().items()}
    lines = re.findall(r"^(.+?) (KEPT|BROKEN)\b", printed, re.MULTILINE)
    kept = {names[name]: verdict == "KEPT" for name, verdict in lines}
    assert status == (not all(kept.values())), printed
    return kept


def contracts() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    prefix = "importlinter:contract:"
    return {
        section.removeprefix(prefix): parser[section]["name"]
        for section in parser.sections()
        if section.startswith(prefix)
    }


def test_every_contract_has_a_violation_to_prove_it() -> None:
    assert contracts().keys() == VIOLATIONS.keys()


def test_the_tree_keeps_every_contract(verdicts: list[dict[str, bool]]) -> None:
    assert verdicts[0] == dict.fromkeys(contracts(), True)


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[" ".join(row) for row in ROWS])
def test_a_forbidden_import_breaks_its_contract_and_no_other(
    verdicts: list[dict[str, bool]], number: int
) -> None:
    contract = ROWS[number][0]
    assert verdicts[number + 1] == {name: name != contract for name in contracts()}


def test_importing_the_gateway_touches_nothing() -> None:
    script = """
import importlib, pkgutil, sys
sys.dont_write_bytecode = True
touched, acts = [], ("socket.", "subprocess.", "os.", "_thread.start", "signal.", "shutil.")
def note(event, args):
    writes = event == "open" and set(str(args[1])) & set("wax+")
    if writes or event.startswith(acts) and event not in ("os.listdir", "os.scandir"):
        touched.append((event, args))
sys.addaudithook(note)
import gateway
names = [module.name for module in pkgutil.walk_packages(gateway.__path__, "gateway.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
assert len(names) > 100 and not touched, touched
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
