"""The ASGI application: finds the route, lets it answer, and turns what it raised into a reply.

Every answer carries `x-request-id`; every request leaves one log line. A refusal is in the shape
of the dialect whose route it asked for; a path that no dialect is near to gets plain JSON.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import structlog

from gateway.errors import BadRequest, GatewayError, HttpError, Internal, StoreUnavailable
from gateway.messages import Reply, RequestHead
from gateway.ports.codecs import Dialect
from gateway.ports.routes import Endpoint, OpenEndpoint, Route
from gateway.replies import error_reply, http_text
from gateway.transport.asgi import (
    Exchange,
    ExchangeLimits,
    Fields,
    Message,
    Receive,
    Send,
    header_bytes,
)
from gateway.web.admission import Admission
from gateway.web.chat import Chat, Services, trace_id
from gateway.web.gate import Gate, TurnedAway
from gateway.web.request import Request, request_id
from gateway.web.routing import Match, Router

_log: Final = structlog.get_logger("gateway.web")
_TARGET_BYTES: Final = 8192
_HEADER_FIELDS: Final = 100
_HEADER_BYTES: Final = 16_384

Target = Callable[[Request], Awaitable[None]]


class RequestRecorder(Protocol):
    """Where a request leaves its log line and its refusal."""

    def refused(self, dialect: str, kind: str) -> None:
        """A request was refused before a turn began."""
        ...

    def request_ended(self, request: Request) -> None:
        """A request is over: one log line."""
        ...

    def turned_away(self, refusal: TurnedAway) -> None:
        """A request was answered by its head alone: both of these."""
        ...


class OperatorRoutes(Protocol):
    """The probes, and on the admin listener the metrics."""

    async def answer(self, method: str, path: str, query: str, accept: str) -> Reply | None:
        """The answer, or None for a path that is not an operator's."""
        ...


class App:
    """The public listener's application, and the gate before it."""

    def __init__(
        self,
        services: Services,
        dialects: Sequence[Dialect],
        endpoints: Sequence[Endpoint],
        open_endpoints: Sequence[OpenEndpoint],
        operators: OperatorRoutes,
        recorder: RequestRecorder,
        new_request_id: Callable[[], str],
    ) -> None:
        self._services = services
        self._dialects = {dialect.name: dialect for dialect in dialects}
        self._operators = operators
        self._recorder = recorder
        self._new_request_id = new_request_id
        self._admission = Admission(
            services.cors, services.limits, services.visitors, services.strangers, services.now
        )
        self._chat = Chat(services, self._admission)
        self.gate: Final = Gate(services, self._admission, dialects, recorder, new_request_id)
        self._limits = ExchangeLimits(services.bounds.body_bytes, services.bounds.body_s)
        routes: list[tuple[Route, str, Target]] = []
        for dialect in dialects:
            serve = partial(self._chat.serve, dialect=dialect)
            routes += [(route, dialect.name, serve) for route in dialect.routes]
        self._own_headers: dict[str, tuple[str, ...]] = {}
        for endpoint in endpoints:
            ask = partial(self._ask, endpoint=endpoint)
            routes += [(route, endpoint.dialect, ask) for route in endpoint.routes]
            headers = tuple(source.header for source in endpoint.credentials)
            self._own_headers |= {route.path: headers for route in endpoint.routes}
        for public in open_endpoints:
            ask = partial(self._ask_openly, endpoint=public)
            routes += [(route, public.dialect, ask) for route in public.routes]
        self._router: Router[Target] = Router(routes)
        self.routes: Final = tuple(route for route, _, _ in routes)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One ASGI scope; nothing but cancellation ever leaves it."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        else:
            exchange = Exchange(scope, receive, send, self._limits)
            await exchange.run(self._serve)

    async def _serve(self, exchange: Exchange) -> None:
        request = self._request(exchange)
        exchange.stamp = partial(self._stamp, request)
        try:
            await self._dispatch(request)
        except GatewayError as error:
            await self._refuse(request, error)
        except asyncio.CancelledError:
            if not request.quiet:
                self._count_refusal(request, "cancelled")
            raise
        except Exception:  # noqa: BLE001 - whatever it was, the client gets an answer
            _log.exception("request_fault", request_id=request.request_id)
            await self._refuse(request, Internal())
        finally:
            if not request.quiet:
                self._recorder.request_ended(request)

    def _request(self, exchange: Exchange) -> Request:
        head = exchange.head
        trace = trace_id(head.headers.get("traceparent"), fallback=self._new_request_id())
        began = asyncio.get_running_loop().time()
        return Request(exchange, head, request_id(head, self._new_request_id), trace, began=began)

    async def _dispatch(self, request: Request) -> None:
        head = request.head
        reply = await self._operators.answer(
            head.method, head.path, head.query, head.headers.get("accept")
        )
        if reply is not None:
            request.quiet = True
            await self._send(request, reply)
            return
        match = self._router.match(head.method, head.path)
        request.dialect = match.owner if match else self._router.nearest_owner(head.path)
        request.template = match.template if match else None
        _check_head(head)
        if match is None:
            raise HttpError(404, "no such route")
        if head.method == "OPTIONS":
            origin = head.headers.get("origin")
            request.quiet = True
            own = self._own_headers.get(match.template, ())
            await self._send(
                request, self._services.cors.preflight(match.owner, origin, match.methods, own)
            )
            return
        await self._answer(request, match)

    async def _answer(self, request: Request, match: Match[Target]) -> None:
        head = request.head
        if match.target is None:
            allow = ", ".join(match.methods)
            raise HttpError(405, f"{head.method} is not for this route", {"allow": allow})
        request.head = replace(head, path=match.path, params=match.params)
        await match.target(request)

    async def _ask(self, request: Request, endpoint: Endpoint) -> None:
        principal = self._admission.recognise(
            request, endpoint.dialect, endpoint.credentials, endpoint.authenticator
        )
        await self._admission.take_call(request, principal)
        body = await request.exchange.body()
        await self._tell(request, await endpoint.answer(request.head, body, principal))

    async def _ask_openly(self, request: Request, endpoint: OpenEndpoint) -> None:
        body = await request.exchange.body()
        admit = partial(self._admission.admit_tenant, request, endpoint.dialect)
        reply = await endpoint.answer(request.head, body, admit)
        if reply.refused == "unauthorized":
            self._admission.count_stranger(request.head, request.exchange.client)
        await self._tell(request, reply)

    async def _tell(self, request: Request, reply: Reply) -> None:
        if reply.refused is not None:
            self._count_refusal(request, reply.refused)
        await self._send(request, reply)

    def _stamp(self, request: Request) -> Fields:
        """The fields of every answer: its id, and CORS for the tenant's origins once known."""
        stamp: Fields = (("x-request-id", request.request_id),)
        if request.template is None or request.dialect is None or request.head.method == "OPTIONS":
            return stamp
        origin = request.head.headers.get("origin")
        return stamp + self._services.cors.headers(request.dialect, request.tenant, origin)

    async def _refuse(self, request: Request, error: GatewayError) -> None:
        self._count_refusal(request, error.kind)
        if isinstance(error, StoreUnavailable):
            request.why = str(error)
        if request.exchange.answered:
            return
        dialect = self._dialects.get(request.dialect or "")
        reply = dialect.encode_error(error) if dialect else _plain_error(error)
        await self._send(request, reply)

    def _count_refusal(self, request: Request, kind: str) -> None:
        if request.tally is not None:
            return  # it was admitted, and counted as a turn
        request.refused = kind
        self._recorder.refused(request.dialect or "other", kind)

    async def _send(self, request: Request, reply: Reply) -> None:
        """A whole answer, within the send clock; a client that takes none of it gets no more."""
        try:
            async with asyncio.timeout(self._services.bounds.send_s):
                await request.exchange.reply(reply)
        except TimeoutError:
            # Not a line of its own: whoever opens many streams and reads none would fill the log.
            request.why = "the client took nothing of its answer"


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Says yes to both messages: what must be ready was ready before the server began."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _check_head(head: RequestHead) -> None:
    if len(head.path) + len(head.query) > _TARGET_BYTES:
        raise HttpError(414, f"the request target is over {_TARGET_BYTES} bytes")
    fields = list(head.headers)
    if any("_" in name for name, _ in fields):
        # Behind a server that takes it for a hyphen it would be another field.
        raise BadRequest("a header field's name has an underscore")
    if len(fields) > _HEADER_FIELDS or header_bytes(fields) > _HEADER_BYTES:
        raise HttpError(431, "too many header fields or bytes")


def _plain_error(error: GatewayError) -> Reply:
    status = error.http_status if isinstance(error, HttpError) else error.status
    if isinstance(error, HttpError):
        text = http_text(error)
    else:
        text = "Internal server error" if status == 500 else "Bad request"
    return error_reply(error, status, {"error": text})
