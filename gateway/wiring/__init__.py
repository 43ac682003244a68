"""Settings in, a running gateway out: the only module that names concrete classes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time

from gateway import openapi
from gateway.access.claims import Ledger
from gateway.access.limits import Limits
from gateway.access.session_tokens import SessionTokens
from gateway.access.strangers import Strangers
from gateway.access.visitors import Visitors
from gateway.dialects import DIALECTS
from gateway.ports.conversations import ConversationStore
from gateway.ports.turns import Model
from gateway.settings import Settings
from gateway.stores.ledger import MemoryLedger
from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import SqliteStore
from gateway.stores.sqlite_ledger import SqliteLedger
from gateway.telemetry.logs import RequestLine, request_line
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.scoreboard import Scoreboard
from gateway.transport.asgi import Message, Receive, Send
from gateway.turn.locks import ConversationLocks
from gateway.turn.plan import Agent
from gateway.turn.pressure import Pressure
from gateway.turn.registry import RunningTurns
from gateway.turn.seats import Seats
from gateway.turn.tally import TurnTally
from gateway.web.app import App
from gateway.web.chat import Bounds, Services
from gateway.web.gate import TurnedAway
from gateway.web.operators import Operators
from gateway.web.request import Request
from gateway.wiring import access, endpoints, upstreams
from gateway.wiring.ids import NewIds, NewPublicIds

Asgi = Callable[[Message, Receive, Send], Coroutine[None, None, None]]
__all__ = ["Built", "build"]


@dataclass(frozen=True, slots=True)
class Built:
    """A gateway that is ready to be served."""

    app: App
    store: ConversationStore
    tokens: SessionTokens
    turns: RunningTurns
    metrics: Metrics


@asynccontextmanager
async def build(
    settings: Settings, *, embedded_url: str = "", board: Scoreboard | None = None
) -> AsyncIterator[Built]:
    """Starts what the settings name and takes it down again at the end of the block.

    `embedded_url` is where the embedded model answers, if the settings use it; `board` is where
    the metrics go. Raises `StoreUnavailable`.
    """
    async with AsyncExitStack() as stack:
        store, ledger = store_of(settings)
        await store.open()
        stack.push_async_callback(store.close)
        metrics = Metrics(
            [dialect.name for dialect in DIALECTS],
            upstreams.model_labels(settings),
            upstreams.target_labels(settings),
            board=board,
        )
        models = upstreams.models(settings, metrics.upstreams, stack, embedded_url)
        tokens = access.session_tokens(settings)
        turns = RunningTurns(settings.limits.turns_in_flight, len(settings.tenants))
        limits = access.limits(settings, ledger, metrics, NewIds())
        await stack.enter_async_context(limits.renewing())
        pressure = Pressure(lambda: turns.at_work)
        stack.enter_context(pressure.measuring())
        services = _services(settings, models, store, tokens, turns, pressure, metrics, limits)

        def readiness() -> dict[str, bool]:
            # Nothing gets here unless the settings were good and the store could be opened.
            return {"configuration": True, "store": True, "accepting": not turns.stopping}

        probes = Operators(None, readiness, description=openapi.rendered())
        app = App(
            services,
            DIALECTS,
            endpoints.keyed(settings, services.authenticators, store, _model_names(services)),
            endpoints.unkeyed(settings, tokens),
            probes,
            _Recorder(metrics),
            services.new_id,
        )
        yield Built(app, store, tokens, turns, metrics)


class _Recorder:
    """Metrics and the request's log line."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def refused(self, dialect: str, kind: str) -> None:
        self._metrics.refused(dialect, kind)

    def request_ended(self, request: Request) -> None:
        tally: TurnTally | None = request.tally
        exchange = request.exchange
        outcome = tally.outcome if tally else request.refused or "ok"
        request_line(
            RequestLine(
                request_id=request.request_id,
                method=request.head.method,
                http_version=request.head.http_version,
                route=request.template,
                dialect=request.dialect,
                status=exchange.status,
                outcome=outcome,
                kind=None if outcome == "ok" else outcome,
                tenant=request.tenant,
                key=request.key,
                duration_ms=round((asyncio.get_running_loop().time() - request.began) * 1000),
                bytes=exchange.sent_bytes,
                why=request.why,
            ),
            tally,
        )

    def turned_away(self, refusal: TurnedAway) -> None:
        self._metrics.refused(refusal.dialect, refusal.kind)
        request_line(
            RequestLine(
                request_id=refusal.request_id,
                method=refusal.head.method,
                http_version=refusal.head.http_version,
                route=refusal.route,
                dialect=refusal.dialect,
                status=refusal.reply.status,
                outcome=refusal.kind,
                kind=refusal.kind,
                tenant=refusal.principal.tenant if refusal.principal else None,
                key=refusal.principal.key if refusal.principal else None,
                bytes=len(refusal.reply.body),
            )
        )


def store_of(settings: Settings) -> tuple[ConversationStore, Ledger]:
    """Where the conversations are, and the limits' state in the same place; not opened yet."""
    scheme, _, path = settings.store.url.partition(":")
    days, new_id = settings.store.retention_days, NewPublicIds()
    if scheme == "memory":
        return MemoryStore(retention_days=days, new_id=new_id), MemoryLedger()
    if scheme == "sqlite":
        file = SqliteStore(Path(path), retention_days=days, new_id=new_id)
        return file, SqliteLedger(file.write)
    # Its client library takes long to import.
    from gateway.stores.valkey import ValkeyStore
    from gateway.stores.valkey_ledger import ValkeyLedger

    shared = ValkeyStore(settings.store.url, retention_days=days, new_id=new_id)
    return shared, ValkeyLedger(shared.server)


def _services(
    settings: Settings,
    models: Mapping[str, Model],
    store: ConversationStore,
    tokens: SessionTokens,
    turns: RunningTurns,
    pressure: Pressure,
    metrics: Metrics,
    allowances: Limits,
) -> Services:
    limits = settings.limits
    return Services(
        authenticators=access.authenticators(settings, tokens),
        agents=_agents(settings, models),
        options=access.options(settings),
        cors=access.cors(settings),
        limits=allowances,
        visitors=Visitors(settings.server.trusted_proxies),
        strangers=Strangers(metrics, workers=settings.server.workers),
        turns=turns,
        pressure=pressure,
        seats=Seats(store, ConversationLocks()),
        store=store,
        recorder=metrics,
        bounds=Bounds(
            body_bytes=limits.body_bytes,
            body_s=limits.body_s,
            send_s=limits.send_s,
            keep_alive_s=limits.stream_keep_alive_s,
            output_bytes=limits.output_bytes,
        ),
        new_id=NewIds(),
        now=time,
    )


def _agents(settings: Settings, models: Mapping[str, Model]) -> dict[str, Agent]:
    return {
        name: Agent(
            name=name,
            models=tuple(models[upstream] for upstream in agent.upstreams),
            system_prompt=agent.system_prompt,
            history_messages=agent.history_messages,
            max_tokens=agent.max_tokens,
            temperature=agent.temperature,
            stop=agent.stop,
            turn_s=agent.turn_s,
            finish_when_gone=agent.on_disconnect == "finish",
            refusal=agent.refusal,
        )
        for name, agent in settings.agents.items()
    }


def _model_names(services: Services) -> dict[str, str]:
    """The model that each agent is known by."""
    return {name: agent.models[0].model for name, agent in services.agents.items()}
