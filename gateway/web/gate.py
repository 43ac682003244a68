"""Refuses turns by the heads of their requests while the worker is under pressure.

A refusal must cost a small part of what a turn costs, or whoever asks for more than the worker can
serve gets less served. So it comes before the application: the server asks the gate as soon as it
has a head, and only while turns are being shed. What the gate cannot judge (another route, a key
that nobody has) it lets in, and the application answers. A refused turn is counted as every
refusal is; its log line is one a second for all of them together.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from gateway.errors import GatewayError, Overloaded
from gateway.messages import Reply, RequestHead
from gateway.ports.codecs import Dialect
from gateway.web.admission import Admission
from gateway.web.chat import Services
from gateway.web.request import request_id
from gateway.web.routing import Router

_log: Final = structlog.get_logger("gateway.web")
_REPORT_S: Final = 1.0


class RefusalRecorder(Protocol):
    """Where a refusal is counted."""

    def refused(self, dialect: str, kind: str) -> None:
        """A request was refused before a turn began."""
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
        self.pressure: Final = services.pressure
        self._admission = admission
        self._recorder = recorder
        self._new_id = new_id
        self._router: Router[Dialect] = Router(
            (route, dialect.name, dialect) for dialect in dialects for route in dialect.routes
        )
        self._shed: Counter[str] = Counter()

    @property
    def shedding(self) -> bool:
        """Whether heads have to be judged at all."""
        return self.pressure.shedding

    def refusal(self, head: RequestHead) -> Reply | None:
        """The answer to a turn that is one too many for its tenant; None to let it in."""
        match = self._router.match(head.method, head.path)
        dialect = match.target if match is not None else None
        if dialect is None:
            return None
        try:
            principal = self._admission.identify(
                head, dialect.name, dialect.credentials, self._authenticators[dialect.name]
            )
            self._admission.check_origin(head, dialect.name, principal.tenant)
        except GatewayError:
            return None
        try:
            self.pressure.admit(principal.tenant)
        except Overloaded as error:
            return self._refuse(head, dialect, principal.tenant, error)
        return None

    def _refuse(self, head: RequestHead, dialect: Dialect, tenant: str, error: Overloaded) -> Reply:
        self._recorder.refused(dialect.name, error.kind)
        if not self._shed:
            asyncio.get_running_loop().call_later(_REPORT_S, self._report)
        self._shed[tenant] += 1
        reply = dialect.encode_error(error)
        origin = head.headers.get("origin")
        return Reply(
            reply.status,
            (
                *reply.headers,
                ("x-request-id", request_id(head, self._new_id)),
                *self._cors.headers(dialect.name, tenant, origin),
            ),
            reply.body,
        )

    def _report(self) -> None:
        shed, self._shed = self._shed, Counter()
        _log.warning(
            "turns_shed",
            turns=shed.total(),
            tenants=len(shed),
            most_of=shed.most_common(1)[0][0],
            admitted_per_s=round(self.pressure.rate),
            loop_lag_ms=round(self.pressure.lag_s * 1000),
        )
