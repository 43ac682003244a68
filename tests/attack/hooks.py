"""What an attacked process has in it that a served one has not: a probe, and planted faults.

The probe is a thread that says, over a socket in the site's directory, how many tasks the process
holds. The faults are the store's and belong to certain conversation ids, so that a turn can be
made to raise before its answer, to raise in it, or to block the event loop.
"""

import asyncio
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

RAISES_BEFORE: Final = "raises-before"
RAISES_AFTER: Final = "raises-after"
BLOCKS: Final = "blocks-the-loop"
BLOCK_S: Final = 2.0
_STORES: Final = (("memory", "MemoryStore"), ("sqlite", "SqliteStore"))


def install(folder: str) -> None:
    """Starts the probe, and plants the faults if this process is the gateway's."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(Path(folder) / str(os.getpid())))
    listener.listen()
    threading.Thread(target=_answer, args=(listener,), daemon=True).start()
    if any("gateway" in argument for argument in sys.orig_argv):
        for module, name in _STORES:
            _plant(getattr(import_module(f"gateway.stores.{module}"), name))


def _answer(listener: socket.socket) -> None:
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(str(_tasks()).encode())


def _tasks() -> int:
    kind = asyncio.Task
    return sum(1 for each in gc.get_objects() if type(each) is kind and not each.done())


def _plant(store: Any) -> None:  # a class; its methods keep their own signatures
    for name in ("load", "begin"):
        _wrap(store, name, RAISES_BEFORE)
    _wrap(store, "commit", RAISES_AFTER)


def _wrap(store: Any, name: str, marker: str) -> None:
    method: Callable[..., Awaitable[object]] = getattr(store, name)

    async def faulty(self: object, *given: object, **named: object) -> object:
        text = repr(given)
        if marker in text:
            raise RuntimeError("planted")
        if BLOCKS in text:
            time.sleep(BLOCK_S)  # a blocked loop is what is asked for
        return await method(self, *given, **named)

    setattr(store, name, faulty)
