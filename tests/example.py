"""The gateway with its embedded model, asked once in each dialect: `make example`.

Takes free ports and a folder of its own, shows the bytes that each client would read, and ends
what it started.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).resolve().parents[1]
DIALECTS: Final = ("hyponema", "hyperleap", "widget", "helper")
QUESTION: Final = "What is the capital of France?"
GATEWAY: Final = (sys.executable, "-m", "gateway")
CONFIG: Final = str(ROOT / "config/dev.yaml")
SERVE: Final = ("serve", "--config", CONFIG, "--demo", "--bind", "127.0.0.1:0")


def main() -> int:
    """The exit code: 0 if every dialect got an answer."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GATEWAY_ADMIN__BIND": "127.0.0.1:0"}
        server = subprocess.Popen(
            (*GATEWAY, *SERVE),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            url = _listening(server.stdout)
            codes = [_ask(dialect, url, folder, environment) for dialect in DIALECTS]
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)
    return max(codes)


def _listening(lines: IO[str]) -> str:
    """The public address, once all demo lines were printed: the helper's is the last."""
    url = ""
    for line in lines:
        if line.startswith("{") and (record := json.loads(line)).get("event") == "listening":
            url = f"http://{record['public'][0]}"
        if url and "conversationSlug" in line:
            return url
    raise SystemExit("the gateway did not start; its reason is above")


def _ask(dialect: str, url: str, folder: str, environment: dict[str, str]) -> int:
    print(f"\n== {dialect}: {QUESTION}", flush=True)
    command = (*GATEWAY, "chat", "--dialect", dialect, "--url", url, "--raw", "--once", QUESTION)
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
