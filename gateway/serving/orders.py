"""What the supervisor and a worker say to each other, over a socket that only they have.

First the supervisor sends the worker's orders, once; then both send words, one line of JSON each.
The end of the socket is the other's end.

    to the worker    stop(notice_s, drain_s)   the gateway stops
                     retire(drain_s)           a successor listens: accept nothing more, and end
                     hurry                     end running turns now
    to the supervisor listening                it accepts connections
                     failed(why)               it cannot start
                     leaving                   somebody else asked it to stop
"""

import asyncio
import json
import pickle
from asyncio import FIRST_COMPLETED
from collections.abc import Callable
from dataclasses import dataclass
from socket import MSG_WAITALL, socket
from typing import Any, Final

from gateway import __version__
from gateway.demo import Demo
from gateway.settings import LimitSettings, Settings

BEAT_S: Final = 0.25
"""How often a worker gives a sign of life."""

_RELEASE_BYTES: Final = 32
_LENGTH_BYTES: Final = 8

Word = dict[str, object]
AnyFuture = asyncio.Future[Any]  # a Future of one type is none of `object`


class OrdersError(Exception):
    """The orders are for another release of the gateway; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Orders:
    """Everything that a worker is told.

    `plain` and `tls` are descriptors of listening sockets that it inherited; `embedded_url` is
    where the embedded model answers, empty if there is none.
    """

    slot: int
    settings: Settings
    demo: Demo | None
    embedded_url: str
    plain: tuple[int, ...]
    tls: tuple[int, ...]

    def encoded(self) -> bytes:
        """The orders as they go over the socket, behind the release that they are written in."""
        body = pickle.dumps(self)
        release = __version__.encode().ljust(_RELEASE_BYTES)
        return release + len(body).to_bytes(_LENGTH_BYTES, "big") + body


MakeOrders = Callable[[int], Orders]
"""The orders for the worker in a place."""


def read_orders(channel: socket) -> Orders | None:
    """Waits for the orders; None if the supervisor went away. Raises `OrdersError`."""
    head = channel.recv(_RELEASE_BYTES + _LENGTH_BYTES, MSG_WAITALL)
    if len(head) < _RELEASE_BYTES + _LENGTH_BYTES:
        return None
    release = head[:_RELEASE_BYTES].decode().rstrip()
    if release != __version__:
        raise OrdersError(
            f"version {__version__} is installed and {release} runs; restart the gateway"
        )
    size = int.from_bytes(head[_RELEASE_BYTES:], "big")
    body = bytearray()
    while len(body) < size and (part := channel.recv(min(size - len(body), 1 << 20))):
        body += part
    if len(body) < size:
        return None
    orders = pickle.loads(body)  # noqa: S301 - only the supervisor has the socket's other end
    assert isinstance(orders, Orders)  # noqa: S101 - for the type checker
    return orders


def spoken(word: str, **values: object) -> bytes:
    """A word as it goes over the socket."""
    return json.dumps({"word": word, **values}).encode() + b"\n"


async def heard(reader: asyncio.StreamReader) -> Word | None:
    """The next word; None at the other's end."""
    try:
        line = await reader.readline()
        word = json.loads(line) if line.endswith(b"\n") else None
    except (OSError, ValueError):
        return None
    return word if isinstance(word, dict) else None


def unread_s(limits: LimitSettings) -> float:
    """How long a client may take nothing before its connection is broken off: longer than the
    turn's own clock for that."""
    return 2 * limits.send_s


async def first(wanted: AnyFuture, *others: AnyFuture, within_s: float | None = None) -> bool:
    """Waits for any of them, or for the time; whether `wanted` is done."""
    await asyncio.wait([wanted, *others], timeout=within_s, return_when=FIRST_COMPLETED)
    return wanted.done()
