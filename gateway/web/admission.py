"""Who may ask on a route: credential, then origin, then limits, before a byte of body is read."""

from collections.abc import Callable

from gateway.access.credentials import extract
from gateway.access.limits import Limits
from gateway.access.strangers import Strangers
from gateway.access.visitors import Visitors
from gateway.errors import Forbidden, Unauthorized
from gateway.messages import Principal, RequestHead
from gateway.ports.routes import Authenticator, CredentialSource
from gateway.web.cors import Cors
from gateway.web.request import Request


class Admission:
    """The checks that chat routes and endpoints have in common; `now` reads epoch seconds."""

    def __init__(
        self,
        cors: Cors,
        limits: Limits,
        visitors: Visitors,
        strangers: Strangers,
        now: Callable[[], float],
    ) -> None:
        self._cors = cors
        self._limits = limits
        self._visitors = visitors
        self._strangers = strangers
        self._now = now

    def recognise(
        self,
        request: Request,
        dialect: str,
        credentials: tuple[CredentialSource, ...],
        authenticator: Authenticator,
    ) -> Principal:
        """Who asks, from a page that may.

        Raises `BadRequest`, `Unauthorized`, `Forbidden`, `MailboxNotFound`, and `RateLimited` for
        one wrong credential too many.
        """
        try:
            principal = self.identify(request.head, dialect, credentials, authenticator)
        except Unauthorized:
            self.count_stranger(request.head, request.exchange.client)
            raise
        request.tenant, request.key = principal.tenant, principal.key
        self.check_origin(request.head, dialect, principal.tenant)
        return principal

    def identify(
        self,
        head: RequestHead,
        dialect: str,
        credentials: tuple[CredentialSource, ...],
        authenticator: Authenticator,
    ) -> Principal:
        """Who asks. Raises `BadRequest`, `Unauthorized`, `Forbidden`, `MailboxNotFound`."""
        credential = extract(head, credentials)
        return authenticator.authenticate(credential, dialect, now=self._now())

    def count_stranger(self, head: RequestHead, peer: str | None) -> None:
        """Counts a request whose credential is wrong. Raises `RateLimited` for one too many."""
        self._strangers.count(self.visitor(head, peer))

    def check_origin(self, head: RequestHead, dialect: str, tenant: str) -> None:
        """Raises `Forbidden` for a page of an origin that the tenant does not list."""
        # Two of them are one that nobody lists: a proxy in front may have judged the other.
        origin = ", ".join(head.headers.all("origin"))
        if not self._cors.allows(dialect, tenant, origin):
            raise Forbidden("origin is not listed")

    def visitor(self, head: RequestHead, peer: str | None) -> str | None:
        """The address of the visitor behind the peer, if it has one."""
        return self._visitors.address(peer, head)

    async def take_call(self, request: Request, principal: Principal) -> None:
        """Takes a request that runs no turn from the caller's limits. Raises `RateLimited`."""
        visitor = self.visitor(request.head, request.exchange.client)
        await self._limits.admit_call(principal, visitor=visitor)

    async def admit_tenant(self, request: Request, dialect: str, tenant: str) -> None:
        """Judges origin and limits of a caller of whom only the tenant is known.

        Raises `Forbidden` and `RateLimited`.
        """
        request.tenant = tenant
        self.check_origin(request.head, dialect, tenant)
        await self.take_call(request, Principal(tenant, "", ""))
