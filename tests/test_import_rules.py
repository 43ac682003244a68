import configparser
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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gateway", tmp_path / "gateway", ignore=ignored)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def verdicts(tree: Path) -> dict[str, str]:
    """Contract -> KEPT or BROKEN, as the linter says for the packages below that folder."""
    names = {name: contract for contract, name in contracts().items()}
    script = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [str(script), "--no-cache", "--no-logo"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = re.findall(r"^(.+?) (KEPT|BROKEN)\b", done.stdout, re.MULTILINE)
    found = {names[name]: verdict for name, verdict in lines}
    assert found.keys() == contracts().keys(), done.stdout + done.stderr
    assert (done.returncode == 0) == ("BROKEN" not in found.values())
    return found


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


def test_the_tree_keeps_every_contract(tree: Path) -> None:
    assert set(verdicts(tree).values()) == {"KEPT"}


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [(contract, *row) for contract, rows in VIOLATIONS.items() for row in rows],
)
def test_a_forbidden_import_breaks_its_contract_and_no_other(
    tree: Path, contract: str, file: str, line: str
) -> None:
    path = tree / "gateway" / file
    path.write_text(path.read_text() + f"\n{line}\n")
    broken = {name for name, verdict in verdicts(tree).items() if verdict == "BROKEN"}
    assert broken == {contract}
