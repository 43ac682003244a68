"""The same over sockets: a whole gateway on loopback, its model server cut off or silent.

The gateway is built from settings, as for service: Hypercorn, HTTP/1.1, memory store. The client
keeps its connections from one case to the next, so an answer that was not ended properly also
shows as a broken next one.
"""

import asyncio
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from gateway.access.keys import hash_key
from gateway.access.session_tokens import SessionTokens
from gateway.certify.case import REFUSAL, Outcome
from gateway.certify.judge import Expected, verdict
from gateway.certify.rawhttp import Address, Client, CutUpstream
from gateway.certify.recordings import Recording
from gateway.certify.sweep import CUTS_IN_A_PART, DECODERS, Tally
from gateway.certify.truth import Facts, Truth
from gateway.certify.upstream import tale
from gateway.certify.wires import WIRES, Wire
from gateway.chat import Target
from gateway.messages import ConversationKey
from gateway.ports.codecs import Decoder
from gateway.ports.conversations import ConversationStore
from gateway.serving.listeners import serve
from gateway.transport.asgi import Message, Receive, Send
from gateway.turn.registry import RunningTurns

# The framing that a client gets who asks for none.
SOCKET_WIRES: Final[Mapping[str, str]] = {
    "hyponema": "sse",
    "hyperleap": "array",
    "widget": "ndjson",
    "helper": "ui-message-stream",
}

_CLIENTS: Final = 48
_HUSH_S: Final = 0.15
_CLOCK_S: Final = 15.0
_SETTLE_S: Final = 3.0
_TENANT: Final = "certify"
_KEY: Final = "of-no-use-outside-of-a-certification"


class Gateway(Protocol):
    """What a running gateway shows of itself."""

    @property
    def app(self) -> "_App":
        """The public listener's application."""
        ...

    @property
    def store(self) -> ConversationStore:
        """Where conversations are kept."""
        ...

    @property
    def tokens(self) -> SessionTokens:
        """The helper tenants' tokens."""
        ...

    @property
    def turns(self) -> RunningTurns:
        """The turns that run now."""
        ...

    @property
    def metrics(self) -> "_Metrics":
        """What is counted."""
        ...


class _App(Protocol):
    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None: ...


class _Metrics(Protocol):
    def total(self, name: str, *labels: str) -> float: ...


GatewayMaker = Callable[[Mapping[str, object]], AbstractAsyncContextManager[Gateway]]
"""Builds a gateway from settings, given by their dotted paths."""


@dataclass(frozen=True, slots=True)
class SocketPart:
    """The cuts `begin` to `end`, without `end`, of a recording, on one dialect."""

    recording: Recording
    dialect: str
    hush: bool
    begin: int
    end: int

    @property
    def cases(self) -> int:
        """How many cases it has."""
        return self.end - self.begin


def socket_parts(recording: Recording, dialect: str) -> list[SocketPart]:
    """All cuts of a recording, and all silences in it."""
    cuts = len(recording.data) + 1
    return [
        SocketPart(recording, dialect, hush, begin, min(begin + CUTS_IN_A_PART, cuts))
        for hush in (False, True)
        for begin in range(0, cuts, CUTS_IN_A_PART)
    ]


async def play_over_sockets(
    part: SocketPart, make: GatewayMaker, cuts: Sequence[int] | None = None
) -> Tally:
    """Plays a part, or only these cuts of its recording."""
    chosen = range(part.begin, part.end) if cuts is None else cuts
    wire = _wire(part.dialect)
    name = f"{wire.name}, {'silent' if part.hush else 'closed'}"
    tally = Tally(part.recording.name, name)
    async with (
        CutUpstream(part.recording, hush=part.hush) as upstream,
        make(_settings(part, upstream)) as gateway,
        _serving(gateway) as address,
    ):
        play = _Player(part, wire, gateway, address)
        wrongs = await play.all(chosen)
        # On a busy machine a clock of 0.15 s may run out before the answer was read.
        again = [cut for cut in wrongs if part.hush and wrongs[cut]]
        wrongs |= await play.all(again, clients=1)
        for cut in chosen:
            tally.count(cut, wrongs[cut])
        if wrong := await _settled(gateway, len(chosen) + len(again)):
            tally.count(chosen[-1], wrong)
    return tally


class _Player:
    def __init__(self, part: SocketPart, wire: Wire, gateway: Gateway, address: Address) -> None:
        self._part = part
        self._wire = wire
        self._gateway = gateway
        self._address = address
        self._truth = Truth(part.recording)
        self._whole = tale(self._decoder(), [part.recording.data])
        key = _KEY
        if part.dialect == "helper":
            key = gateway.tokens.mint(
                _TENANT, email=None, anonymous_id=str(uuid.uuid4()), now=time.time()
            )
        self._target = Target(f"http://{address[0]}:{address[1]}", part.dialect, key)

    def _decoder(self) -> Decoder:
        recording = self._part.recording
        return DECODERS[recording.protocol](recording.content_type)

    async def all(self, cuts: Sequence[int], clients: int = _CLIENTS) -> dict[int, str | None]:
        """What is wrong with each cut."""
        waiting = list(reversed(cuts))
        wrongs: dict[int, str | None] = {}

        async def work() -> None:
            client = Client(self._address)
            while waiting:
                cut = waiting.pop()
                wrongs[cut] = await self._one(client, cut)
            client.close()

        await asyncio.gather(*(work() for _ in range(min(clients, len(cuts)))))
        return wrongs

    async def _one(self, client: Client, cut: int) -> str | None:
        conversation = str(uuid.uuid4())
        asked = self._target.message(conversation, "Hello")
        asked = replace(asked, headers={**asked.headers, "x-request-id": f"cut-{cut}"})
        try:
            answer = await client.ask(asked)
        except TimeoutError:
            return f"no end of the answer within {_CLOCK_S:g} s"
        except (OSError, EOFError) as error:
            return f"the connection broke: {type(error).__name__}"
        outcome = Outcome(answer.status, answer.headers, answer.parts, fault=answer.fault)
        key = ConversationKey(_TENANT, self._part.dialect, conversation)
        stored = await self._gateway.store.load(key, messages=10)
        outcome.kept = [(m.text, m.status) for m in stored.messages if m.role == "assistant"]
        return verdict(self._wire, self._expected(cut), outcome)

    def _expected(self, cut: int) -> Expected:
        hush = self._part.hush
        facts = self._truth.at(cut)
        if hush and not facts.ended and not self._truth.at(cut, closed=False).whole:
            facts = Facts()  # silence is a good end only after the last words
        told = tale(self._decoder(), [self._part.recording.data[:cut]], hush=hush)
        return Expected(facts, told, self._whole.text, self._whole.failure is None)


async def _settled(gateway: Gateway, requests: int) -> str | None:
    """Whether every turn was counted once and none is left, which may be a moment later."""
    until = asyncio.get_running_loop().time() + _SETTLE_S
    while True:
        counted = round(gateway.metrics.total("chatgw_turns_total"))
        if counted == requests and not gateway.turns.count:
            return None
        if asyncio.get_running_loop().time() > until:
            return f"{counted} turns counted for {requests} requests, {gateway.turns.count} left"
        await asyncio.sleep(0.02)


def _wire(dialect: str) -> Wire:
    framing = SOCKET_WIRES[dialect]
    return next(w for w in WIRES if (w.dialect.name, w.framing) == (dialect, framing))


@asynccontextmanager
async def _serving(gateway: Gateway) -> AsyncIterator[Address]:
    sock = socket.create_server(("127.0.0.1", 0), backlog=_CLIENTS * 2)
    sock.setblocking(False)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(gateway.app, [sock], stop, idle_s=_CLOCK_S))
    try:
        host, port = sock.getsockname()[:2]
        yield host, port
    finally:
        stop.set()
        await serving
        sock.close()


def _settings(part: SocketPart, upstream: Address) -> dict[str, object]:
    silence_s = _HUSH_S if part.hush else _CLOCK_S
    version = "/v1" if part.recording.protocol == "openai" else ""
    dialects = tuple(name for name in SOCKET_WIRES if name != "helper")
    helper = {"session_secrets": (_KEY,), "unknown_conversation": "create"}
    return {
        "store.url": "memory:",
        "upstreams.cut": {
            "protocol": part.recording.protocol,
            "base_url": f"http://{upstream[0]}:{upstream[1]}{version}",
            "model": "recording",
            "connect_s": _CLOCK_S,
            "first_token_s": silence_s,
            "idle_s": silence_s,
            "total_s": _CLOCK_S,
        },
        "agents.default": {"upstreams": ("cut",), "refusal": REFUSAL, "turn_s": _CLOCK_S},
        f"tenants.{_TENANT}": {
            "keys": {"all": {"hash": hash_key(_KEY), "dialects": dialects}},
            "dialects": {"helper": helper},
        },
    }
