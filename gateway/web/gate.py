"""Refuses turns by the heads of their requests while there are more than can be served.

A refusal must cost a small part of what a turn costs, or whoever asks for more than the worker can
serve gets less served. So it comes before the application: the server asks the gate as soon as it
has a head, and only while the loop is late or places are scarce. What the gate cannot judge
(another route, a page of another origin) it lets in, and the application answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gateway.errors import GatewayError, Overloaded, RateLimited, Unauthorized
from gateway.messages import Principal, Reply, RequestHead
from gateway.ports.codecs import Dialect
from gateway.web.admission import Admission
from gateway.web.chat import Services
from gateway.web.request import request_id
from gateway.web.routing import Match, Router


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A refusal as it is counted and logged; `route` is the template of the path."""

    request_id: str
    head: RequestHead
    dialect: str
    route: str
    principal: Principal | None
    kind: str
    reply: Reply


class RefusalRecorder(Protocol):
    """Where a refusal is counted and leaves its log line."""

    def turned_away(self, refusal: TurnedAway) -> None:
        """A request was answered by its head alone."""
        ...


class Gate:
    """Stands before the chat routes of all dialects."""

    def __init__(
        self,
        services: Services,
        admission: Admission,
        dialects: Sequence[Dialect],
        recorder: RefusalRecorder,
        new_id: Callable[[], str],
    ) -> None:
        self._authenticators = services.authenticators
        self._cors = services.cors
        self._turns = services.turns
        self.pressure: Final = services.pressure
        self._admission = admission
        self._recorder = recorder
        self._new_id = new_id
        self._router: Router[Dialect] = Router(
            (route, dialect.name, dialect) for dialect in dialects for route in dialect.routes
        )

    @property
    def shedding(self) -> bool:
        """Whether heads have to be judged at all."""
        return self.pressure.shedding or self._turns.crowded

    def refusal(self, head: RequestHead, peer: str | None) -> Reply | None:
        """The answer to a turn that is one too many for its tenant, or that nobody may ask for;
        None to let it in. `peer` is the address that it came from."""
        match = self._router.match(head.method, head.path)
        if match is None or match.target is None:
            return None
        dialect = match.target
        try:
            principal = self._admission.identify(
                head, dialect.name, dialect.credentials, self._authenticators[dialect.name]
            )
            self._admission.check_origin(head, dialect.name, principal.tenant)
        except Unauthorized as error:
            return self._refuse(head, match, dialect, None, self._stranger(head, peer, error))
        except GatewayError:
            return None
        try:
            self._turns.check_room(principal.tenant)
            if self.pressure.shedding:
                self.pressure.admit(principal.tenant)
        except Overloaded as error:
            return self._refuse(head, match, dialect, principal, error)
        return None

    def _stranger(self, head: RequestHead, peer: str | None, error: Unauthorized) -> GatewayError:
        try:
            self._admission.count_stranger(head, peer)
        except RateLimited as throttled:
            return throttled
        return error

    def _refuse(
        self,
        head: RequestHead,
        match: Match[Dialect],
        dialect: Dialect,
        principal: Principal | None,
        error: GatewayError,
    ) -> Reply:
        number = request_id(head, self._new_id)
        origin = head.headers.get("origin")
        reply = dialect.encode_error(error)
        tenant = None if principal is None else principal.tenant
        cors = self._cors.headers(dialect.name, tenant, origin)
        reply = replace(reply, headers=(*reply.headers, ("x-request-id", number), *cors))
        self._recorder.turned_away(
            TurnedAway(number, head, dialect.name, match.template, principal, error.kind, reply)
        )
        return reply
