"""Routes, how a caller proves who it is, and the small JSON endpoints beside chat."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.messages import (
    Principal,
    Reply,
    RequestHead,
)

Admit = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One chat route: `/sessions/{id}/messages`; a parameter is one path segment."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """A header that may carry the credential; `bearer` ones have the scheme before it."""

    header: str
    bearer: bool = False


class Authenticator(Protocol):
    """Turns a route's credential into a principal."""

    def authenticate(self, credential: str, dialect: str, *, now: float) -> Principal:
        """Raises `Unauthorized`, `Forbidden` or `MailboxNotFound`; `now` in epoch seconds."""
        ...


class Endpoint(Protocol):
    """A small JSON route beside a dialect's chat route, for callers with a credential."""

    dialect: str
    routes: tuple[Route, ...]
    credentials: tuple[CredentialSource, ...]
    authenticator: Authenticator

    async def answer(self, head: RequestHead, body: bytes, principal: Principal) -> Reply:
        """The whole answer to a caller who was admitted. Raises `GatewayError`."""
        ...


class OpenEndpoint(Protocol):
    """A small JSON route for callers whose credential, if any, is in the body."""

    dialect: str
    routes: tuple[Route, ...]

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """The whole answer. Raises `GatewayError`.

        `admit` is to be called with the tenant as soon as it is known; it raises `Forbidden` for
        an origin that the tenant does not list, and `RateLimited`.
        """
        ...
