"""Who may ask on a route: credential, then origin, then limits, before a byte of body is read."""

from collections.abc import Callable

from gateway.access.credentials import extract
from gateway.access.limits import Limits
from gateway.access.visitors import Visitors
from gateway.errors import Forbidden
from gateway.messages import Principal
from gateway.ports import Authenticator, CredentialSource
from gateway.web.cors import Cors
from gateway.web.request import Request


class Admission:
    """The checks that chat routes and endpoints have in common; `now` reads epoch seconds."""

    def __init__(
        self, cors: Cors, limits: Limits, visitors: Visitors, now: Callable[[], float]
    ) -> None:
        self._cors = cors
        self._limits = limits
        self._visitors = visitors
        self._now = now

    def recognise(
        self,
        request: Request,
        dialect: str,
        credentials: tuple[CredentialSource, ...],
        authenticator: Authenticator,
    ) -> Principal:
        """Who asks, from a page that may. Raises `BadRequest`, `Unauthorized`, `Forbidden`."""
        credential = extract(request.head, credentials)
        principal = authenticator.authenticate(credential, dialect, now=self._now())
        request.tenant, request.key = principal.tenant, principal.key
        self._check_origin(request, dialect, principal.tenant)
        return principal

    def visitor(self, request: Request) -> str | None:
        """The address of the visitor behind the request, if it has one."""
        return self._visitors.address(request.exchange.client, request.head)

    async def take_call(self, request: Request, principal: Principal) -> None:
        """Takes a request that runs no turn from the caller's limits. Raises `RateLimited`."""
        await self._limits.admit_call(principal, visitor=self.visitor(request))

    async def admit_tenant(self, request: Request, dialect: str, tenant: str) -> None:
        """Judges origin and limits of a caller of whom only the tenant is known.

        Raises `Forbidden` and `RateLimited`.
        """
        request.tenant = tenant
        self._check_origin(request, dialect, tenant)
        await self.take_call(request, Principal(tenant, "", ""))

    def _check_origin(self, request: Request, dialect: str, tenant: str) -> None:
        if not self._cors.allows(dialect, tenant, request.head.headers.get("origin")):
            raise Forbidden("origin is not listed")
