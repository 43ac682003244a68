"""Cross-origin rules (the Fetch standard, "CORS protocol"), per tenant.

A preflight carries no key, so it is allowed when any tenant with the dialect lists the origin.
The real request is judged by its own tenant. `*` lists every origin.
"""

from collections.abc import Collection, Mapping
from typing import Final

from gateway.messages import Reply
from gateway.transport.asgi import Fields

_REQUEST_HEADERS: Final = (
    "content-type",
    "authorization",
    "x-api-key",
    "x-widget-api-key",
    "x-hl-api-key",
    "x-request-id",
    "idempotency-key",
    "traceparent",
)
_EXPOSED: Final = "x-request-id, retry-after"
_MAX_AGE_S: Final = "600"


class Cors:
    """Who lists which origin: `origins[dialect][tenant]`."""

    def __init__(self, origins: Mapping[str, Mapping[str, Collection[str]]]) -> None:
        self._by_tenant = {
            dialect: {tenant: frozenset(listed) for tenant, listed in tenants.items()}
            for dialect, tenants in origins.items()
        }
        self._by_dialect = {
            dialect: frozenset().union(*tenants.values())
            for dialect, tenants in self._by_tenant.items()
        }

    def preflight(
        self,
        dialect: str,
        origin: str,
        methods: Collection[str],
        credentials: Collection[str] = (),
    ) -> Reply:
        """The answer to an OPTIONS request: 204, without CORS headers for an unlisted origin.

        `credentials` are the headers that this route takes, perhaps beside the usual ones.
        """
        if not origin or not _listed(self._by_dialect.get(dialect, frozenset()), origin):
            return Reply(204, (("vary", "Origin"), ("allow", ", ".join(methods))))
        headers = dict.fromkeys((*_REQUEST_HEADERS, *credentials))
        return Reply(
            204,
            (
                ("access-control-allow-origin", origin),
                ("vary", "Origin"),
                ("access-control-allow-methods", ", ".join(methods)),
                ("access-control-allow-headers", ", ".join(headers)),
                ("access-control-max-age", _MAX_AGE_S),
            ),
        )

    def allows(self, dialect: str, tenant: str, origin: str) -> bool:
        """Whether the tenant lists the origin; a request without one is always allowed."""
        listed = self._by_tenant.get(dialect, {}).get(tenant, frozenset())
        return not origin or _listed(listed, origin)

    def headers(self, dialect: str, tenant: str | None, origin: str) -> Fields:
        """The fields of an answer; before the tenant is known (None), as for a preflight."""
        if tenant is None:
            listed = self._by_dialect.get(dialect, frozenset())
        else:
            listed = self._by_tenant.get(dialect, {}).get(tenant, frozenset())
        if not origin:
            return (("vary", "Origin"),) if listed else ()
        if not _listed(listed, origin):
            return (("vary", "Origin"),)
        return (
            ("access-control-allow-origin", origin),
            ("vary", "Origin"),
            ("access-control-expose-headers", _EXPOSED),
        )


def _listed(listed: Collection[str], origin: str) -> bool:
    return origin in listed or "*" in listed
