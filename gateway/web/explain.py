"""Says who would serve a request, or why nobody would, from the code that decides it.

Nothing is taken from any limit and no upstream is asked. What only a conversation knows (its
owner, an agent of its own, a turn that is running) is not looked at.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from gateway.access.limits import Limits
from gateway.errors import GatewayError
from gateway.messages import Headers, Principal, RequestHead
from gateway.ports.codecs import Dialect
from gateway.ports.routes import Authenticator, CredentialSource, Route
from gateway.web.admission import Admission
from gateway.web.routing import Match, Router


class Guarded(NamedTuple):
    """Routes that want a credential, and who judges it; `chat` says that they run turns."""

    routes: tuple[Route, ...]
    dialect: Dialect
    credentials: tuple[CredentialSource, ...]
    authenticator: Authenticator
    chat: bool


class Verdict(NamedTuple):
    """`rows` are a label and a text each; the last one says why not, unless it is `served`."""

    served: bool
    rows: tuple[tuple[str, str], ...]


_METHODS: Final = ("POST", "PATCH", "GET", "PUT", "DELETE")
_ANYBODY: Final = "{visitor}"


class Explainer:
    """Explains requests; `upstreams` names an agent's upstreams in order, with their models."""

    def __init__(
        self,
        routes: Iterable[Guarded],
        admission: Admission,
        limits: Limits,
        upstreams: Mapping[str, tuple[str, ...]],
    ) -> None:
        self._router: Router[Guarded] = Router(
            (route, guarded.dialect.name, guarded) for guarded in routes for route in guarded.routes
        )
        self._admission = admission
        self._limits = limits
        self._upstreams = upstreams

    def explain(
        self, route: str, key: str, *, origin: str | None = None, client: str | None = None
    ) -> Verdict:
        """The verdict on a request with this key.

        `route` is a path, a method before it or not; without `client` it is anybody's.
        """
        method, match = self._match(route)
        if match is None:
            return Verdict(False, (("refused", "404: no route with a credential has this path"),))
        if match.target is None:
            return Verdict(False, (("refused", f"405: it takes {', '.join(match.methods)}"),))
        guarded = match.target
        rows = [("route", f"{method} {match.template} ({guarded.dialect.name})")]
        try:
            self._judge(_head(method, guarded, key, origin), guarded, client, rows)
        except GatewayError as error:
            status = guarded.dialect.encode_error(error).status
            rows.append(("refused", f"{status} {error.kind}: {error}"))
            return Verdict(False, tuple(rows))
        return Verdict(True, tuple(rows))

    def _judge(
        self, head: RequestHead, guarded: Guarded, client: str | None, rows: list[tuple[str, str]]
    ) -> None:
        dialect = guarded.dialect.name
        principal = self._admission.identify(
            head, dialect, guarded.credentials, guarded.authenticator
        )
        rows.append(("tenant", principal.tenant))
        rows.append(("key", principal.identity or principal.key))
        self._admission.check_origin(head, dialect, principal.tenant)
        origin = head.headers.get("origin")
        rows.append(("origin", f"{origin} is listed" if origin else "none, which always may"))
        visitor = self._admission.visitor(head, client) if client else _ANYBODY
        if guarded.chat:
            rows.append(("agent", principal.agent))
            rows += [("upstream", text) for text in self._upstreams[principal.agent]]
        rows += [("limit", text) for text in self._limit_texts(principal, visitor, guarded.chat)]

    def _match(self, route: str) -> tuple[str, Match[Guarded] | None]:
        method, _, path = route.strip().rpartition(" ")
        path = path.partition("?")[0].replace("{", "").replace("}", "")
        tried = (method.strip().upper(),) if method else _METHODS
        found = [(candidate, self._router.match(candidate, path)) for candidate in tried]
        taken = [entry for entry in found if entry[1] is not None and entry[1].target is not None]
        return (taken or found)[0]

    def _limit_texts(self, principal: Principal, visitor: str | None, chat: bool) -> list[str]:
        claim = self._limits.claim(principal, visitor=visitor, tokens=1 if chat else None)
        texts = [f"{take.size} {take.limit} of {take.name}" for take in claim.takes]
        texts += [f"{slot.most} {slot.limit} of {slot.name}" for slot in claim.slots]
        return texts or ["none of this tenant and key; limits.turns_in_flight holds for all"]


def _head(method: str, guarded: Guarded, key: str, origin: str | None) -> RequestHead:
    source = guarded.credentials[0]
    fields = [(source.header, f"Bearer {key}" if source.bearer else key)]
    if origin:
        fields.append(("origin", origin))
    return RequestHead(method, "", "", Headers(tuple(fields)))
