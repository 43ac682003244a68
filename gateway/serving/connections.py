"""The open connections of one worker, for those who have to tell all of them something."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from hypercorn.config import Config

from gateway.messages import Headers, Reply, RequestHead

CROWD: Final = 1024


def request_head(
    method: str, target: bytes, fields: Iterable[tuple[bytes, bytes]], version: str
) -> RequestHead:
    """A head as a gate judges it; `target` is ASCII, values are Latin-1 (RFC 9110 section 5.5)."""
    path, _, query = target.decode("ascii").partition("?")
    read = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
    return RequestHead(method, path, query, Headers(read), http_version=version)


class Gate(Protocol):
    """Refuses requests by their heads, before they cost what a request costs, while there are more
    than can be served."""

    @property
    def shedding(self) -> bool:
        """Whether heads have to be judged at all."""
        ...

    def refusal(self, head: RequestHead, peer: str | None) -> Reply | None:
        """The whole answer to a request that is not served; None to let it in. `peer` is the
        address that it came from."""
        ...


class OpenGate:
    """Lets everybody in."""

    shedding: Final = False

    def refusal(self, head: RequestHead, peer: str | None) -> Reply | None:
        """Nothing, to nobody."""
        return None


class Drainable(Protocol):
    """A connection that can be told to come to its end."""

    def drain(self, quiet_s: float = 0.0) -> None:
        """Tells the client to go elsewhere; what is in flight finishes.

        For so many seconds it may wait for a moment at which nothing is in flight.
        """
        ...

    def stop(self) -> None:
        """As `drain`, but without any time for the client; an idle connection closes at once."""
        ...


class Connections:
    """The connections that are open now, of every listener and every version of HTTP.

    A connection adds itself when it begins and removes itself when it is over. One that comes
    while all are told to end is told so too. `streams` are the requests of HTTP/2 that are served
    now; from `crowd` of them on, a connection may have an even share of so many and no more, and
    from twice as many on a single one: each holds memory until its client has read the answer.
    """

    def __init__(self, crowd: int = CROWD) -> None:
        self._open: set[Drainable] = set()
        self._crowd = crowd
        self.streams = 0
        self.draining = False
        self.stopping = False
        self._quiet_s = 0.0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def share(self) -> int:
        """How many streams a connection may have."""
        if self.streams < self._crowd:
            return self._crowd
        if self.streams >= 2 * self._crowd:
            return 1
        return max(1, self._crowd // max(1, len(self._open)))

    def add(self, connection: Drainable) -> None:
        """From now on the connection hears of the end."""
        self._open.add(connection)
        if self.stopping:
            connection.stop()
        elif self.draining:
            connection.drain(self._quiet_s)

    def remove(self, connection: Drainable) -> None:
        """The connection is over; more than once does no harm."""
        self._open.discard(connection)

    def drain(self, quiet_s: float = 0.0) -> None:
        """Every client is told to go elsewhere, and what is in flight finishes.

        Where new requests are still served, each connection may wait for a moment without any.
        """
        self.draining, self._quiet_s = True, quiet_s
        for connection in list(self._open):
            connection.drain(quiet_s)

    def stop(self) -> None:
        """What is idle closes now, everything else after what it has in flight."""
        self.draining = self.stopping = True
        for connection in list(self._open):
            connection.stop()


class ServingConfig(Config):
    """Hypercorn's configuration with what the gateway's own protocol classes need besides.

    `keep_alive_timeout` (Hypercorn's) is the seconds that an idle connection stays, `unread_s`
    those after which a client that takes nothing of its answer is broken off. `refused` is called
    with the error kind of each request that is refused before the application sees it. `gate`
    judges requests by their heads while it sheds.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        unread_s: float,
        refused: Callable[[str], None],
        gate: Gate,
    ) -> None:
        super().__init__()
        self.connections = connections
        self.gate = gate
        self.unread_s = unread_s
        self.refused = refused
