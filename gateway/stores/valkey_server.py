"""The connection to a Valkey or Redis server (RESP2), with a clock on everything.

A command is given up after a second at most, and after a few failures in a row for a moment at
once, so that an outage costs a turn no more than that. A connection whose command was cancelled
or timed out is closed: its reply must never answer another command.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from hashlib import sha1
from typing import Any, Final
from urllib.parse import urlsplit

from redis import exceptions as said
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from gateway.errors import StoreUnavailable

Argument = str | bytes | int | float
Answer = list[Any]

_PORT: Final = 6379
COMMAND_S: Final = 1.0
# Shorter ones would take a busy moment of this process for a silent server.
_SOCKET_S: Final = 0.9
_CONNECT_S: Final = 0.5
_POOL_WAIT_S: Final = 0.8
# The server runs one command at a time: more connections only make a burst slower to begin.
_CONNECTIONS: Final = 16
_IDLE_CHECK_S: Final = 15
_FAILURES: Final = 3
_OPEN_S: Final = 1.0

_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss"}
_MEANINGS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (said.AuthenticationError, "refuses the credentials in store.url"),
    (said.BusyLoadingError, "is still loading its data"),
    (said.OutOfMemoryError, "is out of memory"),
    (said.ReadOnlyError, "is read-only"),
    (said.NoPermissionError, "forbids its user a command"),
    (said.ClusterCrossSlotError, "is a cluster, which cannot run its scripts"),
    (said.ClusterDownError, "is a cluster, which cannot run its scripts"),
    (said.MovedError, "is a cluster, which cannot run its scripts"),
    (said.TimeoutError, "does not answer in time"),
    (TimeoutError, "does not answer in time"),
    (said.ConnectionError, "cannot be reached"),
    (OSError, "cannot be reached"),
    (said.ResponseError, "refused a command"),
)


def server_url(url: str) -> str:
    """The URL with the scheme that the client library knows."""
    scheme, separator, rest = url.partition("://")
    return f"{_SCHEMES.get(scheme, scheme)}{separator}{rest}"


class ValkeyServer:
    """Runs scripts and commands on one server. `url` may hold a password; error texts name its host
    and port only."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._place = f"{parts.hostname}:{parts.port or _PORT}"
        self._pool = BlockingConnectionPool.from_url(
            server_url(url),
            max_connections=_CONNECTIONS,
            timeout=_POOL_WAIT_S,
            socket_timeout=_SOCKET_S,
            socket_connect_timeout=_CONNECT_S,
            # Only a connection that the server has closed is worth another try: every script may
            # run twice. A silent server would only be waited for twice as long.
            retry=Retry(
                ExponentialBackoff(0.05, 0.02), 1, supported_errors=(said.ConnectionError,)
            ),
            health_check_interval=_IDLE_CHECK_S,
            protocol=2,
            driver_info=None,
        )
        self._client = Redis(connection_pool=self._pool)
        # First come, first served: the pool lets newcomers overtake those that wait for it.
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._breaker = _Breaker()

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()
        await self._pool.disconnect()

    async def run(
        self, script: "Script", keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Answer:
        """What the script returns, as a list. Raises `StoreUnavailable`."""
        values = (len(keys), *keys, *arguments)
        try:
            answer: Answer = await self._ask("EVALSHA", script.digest, *values)
        except said.NoScriptError:  # the server has not seen it since it started
            answer = await self._ask("EVAL", script.source, *values)
        return answer

    async def command(self, *words: Argument) -> Any:
        """One command's answer. Raises `StoreUnavailable`."""
        return await self._ask(*words)

    async def _ask(self, *words: Argument) -> Any:
        self._breaker.check()
        try:
            async with asyncio.timeout(COMMAND_S), self._places:
                command: Awaitable[Any] = self._client.execute_command(*words)  # type: ignore[no-untyped-call]  # the library has no types here
                answer = await command
        except (said.RedisError, OSError) as error:
            refusal = _unavailable(self._place, error)
            if isinstance(error, said.ResponseError):
                self._breaker.answered()
            else:
                self._breaker.failed(str(refusal))
            if isinstance(error, said.NoScriptError):
                raise
            if isinstance(error, said.ReadOnlyError):
                # A server that became a replica: its name may lead to the new primary by now.
                await self._pool.disconnect(inuse_connections=False)
            raise refusal from None
        self._breaker.answered()
        return answer


class Script:
    """A Lua script and the digest under which a server knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


class _Breaker:
    """After some failures in a row all but one command a second is refused at once."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_at = 0.0
        self._why = ""

    def check(self) -> None:
        now = time.monotonic()
        if self._failures < _FAILURES:
            return
        if now < self._closed_at:
            raise StoreUnavailable(f"a moment ago {self._why}")
        self._closed_at = now + _OPEN_S  # this one is the probe

    def failed(self, why: str) -> None:
        self._failures += 1
        self._why = why
        self._closed_at = time.monotonic() + _OPEN_S

    def answered(self) -> None:
        self._failures = 0


def _unavailable(place: str, error: Exception) -> StoreUnavailable:
    meanings = (meaning for kind, meaning in _MEANINGS if isinstance(error, kind))
    meaning = next(meanings, f"failed: {type(error).__name__}")
    return StoreUnavailable(f"the store's server {place} {meaning}")
