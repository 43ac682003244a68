"""Accepts connections of a listening socket, many at a time.

An event loop's own server may take one connection in each of its rounds (libuv's does). When a
round takes long, connections then come faster than they are taken, wait in the kernel unseen, and
at last are dropped by it; and nobody can refuse what was never accepted. Here a round takes up to
`AT_ONCE`, few enough that several workers share a burst.
"""

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable
from socket import socket
from typing import Final

from gateway.serving import descriptors

AT_ONCE: Final = 32
_PAUSE_S: Final = 0.25
_SCARCE: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

_log: Final = logging.getLogger("gateway.serving")


class Acceptor:
    """The listening end of one socket; every connection gets a protocol of its own.

    While descriptors are scarce it takes nobody: who comes waits in the kernel.
    A TLS handshake has `handshake_s` seconds, a close_notify's answer `goodbye_s`. `opening` are
    connections that were accepted and have no protocol yet.
    """

    def __init__(
        self,
        sock: socket,
        protocol: Callable[[], asyncio.Protocol],
        *,
        tls: ssl.SSLContext | None,
        handshake_s: float,
        goodbye_s: float,
    ) -> None:
        self._sock = sock
        self._protocol = protocol
        self._tls = tls
        self._times = (handshake_s, goodbye_s) if tls is not None else (None, None)
        self._loop = asyncio.get_running_loop()
        self.opening: Final[set[asyncio.Task[None]]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self._listen()

    def close(self) -> None:
        """Accepts nothing more; the socket is closed, and handshakes under way go on."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def break_off(self) -> None:
        """Ends handshakes that are under way."""
        for task in self.opening:
            task.cancel()

    def _listen(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _rest(self) -> None:
        # The socket stays readable, so the loop would do nothing else.
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        if descriptors.are_scarce():
            self._rest()
        else:
            self._listen()

    def _accept(self) -> None:
        kept = descriptors.first_kept()
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # it was given up while it waited
            except OSError as error:
                if error.errno not in _SCARCE:
                    _log.warning("connections are not accepted: %r", error)
                self._rest()
                return
            number = connection.fileno()
            task = self._loop.create_task(self._open(connection))
            self.opening.add(task)
            task.add_done_callback(self.opening.discard)
            if number >= kept:
                self._rest()
                return

    async def _open(self, connection: socket) -> None:
        handshake_s, goodbye_s = self._times
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=goodbye_s,
            )
        except (OSError, ssl.SSLError) as error:
            _log.debug("a connection was not opened: %r", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
