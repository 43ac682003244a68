"""A gateway with a scripted model behind it, and the ways in which tests talk to both.

Replies are lined up before they are asked for, one per call of the model. What is asked for
without a reply in line is answered with a fault, so that a surplus call cannot pass unseen.
"""

import asyncio
import importlib
import re
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from gateway.readers import Reader
from tests.e2e.canaries import CANARY
from tests.e2e.config import DIALECTS, admin_key_of, config, tenant, upstream
from tests.e2e.faults import BEFORE, FAULTS
from tests.e2e.http1 import H1
from tests.e2e.http2 import H2
from tests.e2e.process import GatewayProcess
from tests.e2e.routes import Chat, credential_field
from tests.e2e.tls import CERTIFICATE, client_context, server_settings
from tests.e2e.wire import Address, Answer, Exchange, Request, whole
from tests.model_streams import openai_chunk, openai_stream
from tests.upstream import Script, ScriptedUpstream, Seen, Sleep, Step, Wait, answer, stream

WAITER: Final = "You wait on {{name}} at table {{table}}."
PROTOCOLS: Final = ("h1", "h2")
TLS_PROTOCOLS: Final = ("h1-tls", "h2-tls")  # in a world that was opened with `tls`
# In a write of its own and read on its own, also on a busy machine.
_APART: Final = Sleep(0.005)
_CLOCK_S: Final = 10.0
_TRIES: Final = 4
_NOBODY_ASKED: Final = answer(500, {"error": {"message": "no reply was lined up"}})


class World:
    """One gateway, one scripted model; `upstream` is None where the model is a real one."""

    def __init__(self, gateway: GatewayProcess, scripted: ScriptedUpstream | None) -> None:
        self.gateway = gateway
        self._scripted = scripted
        self._line: deque[Script | Callable[[Seen], Script]] = deque()
        if scripted is not None:
            scripted.play(self._next)

    @property
    def upstream(self) -> ScriptedUpstream:
        """The scripted model."""
        assert self._scripted is not None
        return self._scripted

    def _next(self, seen: Seen) -> Script:
        if not self._line:
            return _NOBODY_ASKED
        play = self._line.popleft()
        return play if isinstance(play, Script) else play(seen)

    # What the model will say.

    def reply(
        self, *deltas: str, apart: bool = False, usage: tuple[int, int] | None = (11, 7)
    ) -> None:
        """A good reply in these deltas, at once or each in a read of its own."""
        events = openai_stream(deltas, usage=usage)
        if apart:
            self._line.append(stream(*(step for event in events for step in (event, _APART))))
        else:
            self._line.append(stream(b"".join(events)))

    def reply_in_two(self, first: str, second: str) -> asyncio.Event:
        """A good reply whose second half comes when the event is set; `first` may be empty."""
        gate = asyncio.Event()
        beginning = [openai_chunk({"role": "assistant", "content": ""})]
        if first:
            beginning.append(openai_chunk({"content": first}))
        end = openai_stream([second])[1:]
        self._line.append(stream(b"".join(beginning), Wait(gate), b"".join(end)))
        return gate

    def reply_in_steps(self, *deltas: str) -> list[asyncio.Event]:
        """A good reply that goes on after each delta when its event is set."""
        first, *events = openai_stream(deltas)
        gates = [asyncio.Event() for _ in deltas]
        steps: list[Step] = [first]
        for event, gate in zip(events, gates, strict=False):  # what ends the reply comes at once
            steps += [event, Wait(gate)]
        self.play(*steps, *events[len(gates) :])
        return gates

    def echo(self, times: int) -> None:
        """As many good replies that repeat the last message of their call."""
        self._line.extend([_echo] * times)

    def fail(self, fault: str) -> str:
        """A fault of `faults.FAULTS`, for every try; the error kind that it has to be taken for.

        Tries that are not made stay in line: `forget_replies`.
        """
        kind, script = FAULTS[fault]
        # What fails before the first word is called again, on a kept connection even unseen.
        self._line.extend([script] * (_TRIES if fault in BEFORE else 1))
        return kind

    def line_up(self, scripts: Iterable[Script]) -> None:
        """These answers, one after another."""
        self._line.extend(scripts)

    def play(self, *steps: Step) -> None:
        """An event stream of these steps."""
        self._line.append(stream(*steps))

    def forget_replies(self) -> None:
        """Takes back what is in line."""
        self._line.clear()

    # What the model saw.

    @property
    def calls(self) -> int:
        """How often the model was called."""
        return len(self.upstream.requests)

    async def called(self, times: int) -> None:
        """Waits until the model was called that often."""
        async with asyncio.timeout(_CLOCK_S):
            await self.upstream.request(times - 1)

    def last_messages(self) -> list[tuple[str, str]]:
        """Role and text of each message of the last call but the system's."""
        messages = self.upstream.requests[-1].json["messages"]
        assert isinstance(messages, list)
        said = [(entry["role"], entry["content"]) for entry in messages]
        return [entry for entry in said if entry[0] != "system"]

    async def noticed(self) -> None:
        """Waits until a gateway of one worker has dealt with whatever reached it before."""
        for _ in range(2):  # one turn of its loop to see it, one for the tasks that wait for it
            assert (await self.gateway.ask(self.gateway.public, "/livez")).status == 200

    async def upstream_is_alone(self, within: float = _CLOCK_S) -> None:
        """Waits until every call of the model is over or was left; fails if one is still held."""
        end = time.monotonic() + within
        while any(
            not (seen.finished.is_set() or seen.gone.is_set()) for seen in self.upstream.requests
        ):
            assert time.monotonic() < end, "the gateway still holds its upstream connection"
            await asyncio.sleep(0.01)

    # What a client does.

    @property
    def url(self) -> str:
        """Where clients find the gateway without TLS."""
        return f"http://{self.gateway.public}"

    @property
    def tls(self) -> Address:
        """The listener under TLS, in a world that was opened with `tls`."""
        assert self.gateway.tls is not None
        return self.gateway.tls

    @property
    def tls_url(self) -> str:
        """Where clients that trust `ca_file` find the gateway under TLS."""
        return f"https://{self.tls}"

    @property
    def ca_file(self) -> Path:
        """The PEM file of the issuer of the gateway's certificate."""
        return CERTIFICATE

    async def h1(self, *, tls: bool = False) -> H1:
        """A connection of HTTP/1.1; the caller closes it."""
        if tls:
            return await H1.connect(self.tls, client_context("http/1.1"))
        return await H1.connect(self.gateway.public)

    async def h2(self, *, tls: bool = False) -> H2:
        """A connection of HTTP/2; the caller closes it."""
        if tls:
            return await H2.connect(self.tls, client_context("h2"))
        return await H2.connect(self.gateway.public)

    @asynccontextmanager
    async def sending(self, request: Request, protocol: str = "h1") -> AsyncIterator[Exchange]:
        """A request on a connection of its own, which is closed at the end."""
        tls = protocol in TLS_PROTOCOLS
        connection = await (self.h1(tls=tls) if protocol.startswith("h1") else self.h2(tls=tls))
        try:
            yield await connection.send(request)
        finally:
            await connection.close()

    async def send(self, request: Request, *, protocol: str = "h1") -> Answer:
        """The whole answer to a request."""
        async with self.sending(request, protocol) as exchange:
            return await whole(exchange)

    @asynccontextmanager
    async def asking(
        self,
        chat: Chat,
        text: str,
        *,
        conversation: str | None = None,
        protocol: str = "h1",
        tenant: str = "acme",
    ) -> AsyncIterator[Exchange]:
        """A message in a conversation (a new one unless given), under way."""
        if conversation is None:
            conversation = await self.conversation(chat, tenant=tenant)
        async with self.sending(chat.request(conversation, text, tenant=tenant), protocol) as it:
            yield it

    async def ask(
        self,
        chat: Chat,
        text: str,
        *,
        conversation: str | None = None,
        protocol: str = "h1",
        tenant: str = "acme",
    ) -> Answer:
        """A message in a conversation, and its whole answer."""
        async with self.asking(
            chat, text, conversation=conversation, protocol=protocol, tenant=tenant
        ) as exchange:
            return await whole(exchange)

    async def conversation(self, chat: Chat, *, tenant: str = "acme") -> str:
        """The id of a new conversation; helper's clients have it made, the others bring one."""
        if chat.dialect != "helper":
            return str(uuid.uuid4())
        fields = (("content-type", "application/json"), credential_field("helper", tenant))
        made = await self.send(Request("POST", "/api/chat/conversation", fields, b"{}"))
        assert made.status == 200, made.text
        body = made.json()
        assert isinstance(body, dict)
        return str(body["conversationSlug"])


def _echo(seen: Seen) -> Script:
    messages = seen.json["messages"]
    assert isinstance(messages, list)
    said = f"You said: {messages[-1]['content']}"
    return stream(
        *(step for event in openai_stream(re.split("(?<= )", said)) for step in (event, _APART))
    )


def read(chat: Chat, seen: Answer) -> Reader:
    """The answer as an independent reader of its format understands it."""
    module = importlib.import_module(f"gateway.readers.{chat.dialect}")
    kinds: Mapping[str, Callable[[], Reader]] = getattr(module, "READERS", {})
    reader: Reader = kinds[chat.framing]() if kinds else module.Reader()
    for part in seen.parts:
        reader.feed(part)
    reader.close()
    return reader


@asynccontextmanager
async def open_world(
    directory: Path,
    *,
    store: str = "memory:",
    tenants: Mapping[str, object] | None = None,
    clocks: Mapping[str, float] | None = None,
    turn_s: float = 60,
    tls: bool = False,
    **sections: Mapping[str, object],
) -> AsyncIterator[World]:
    """A world with the tenants of `_tenants` unless others are given; it ends with status 0.

    With `tls` the gateway has a second listener, under TLS.
    """
    if tls:
        sections["server"] = {**server_settings(), **sections.get("server", {})}
    async with ScriptedUpstream(_NOBODY_ASKED) as scripted:
        agents = {
            "default": {"upstreams": ["main"], "turn_s": turn_s},
            "patient": {"upstreams": ["main"], "on_disconnect": "finish"},
            "cut_off": {"upstreams": ["nobody"]},
            "waiter": {"upstreams": ["main"], "system_prompt": WAITER, "history_messages": 2},
            "elephant": {"upstreams": ["main"], "history_messages": 60},
        }
        upstreams = {
            "main": upstream(f"{scripted.url}/v1", api_key=f"sk-{CANARY}", **(clocks or {})),
            "nobody": upstream("http://127.0.0.1:9/v1", model="nobody"),
        }
        settings = config(
            upstreams, agents=agents, tenants=tenants or _tenants(), store=store, **sections
        )
        directory.mkdir(parents=True, exist_ok=True)
        gateway = await GatewayProcess(settings, directory).start()
        try:
            yield World(gateway, scripted)
        finally:
            await gateway.stop()


def _named_agents() -> dict[str, object]:
    """What clients of `acme` may call its agents; its widget has an operator."""
    names = {"agent_waiter": "waiter", "agent_elephant": "elephant"}
    return {
        "hyponema": {"agents": names},
        "hyperleap": {"personas": names},
        "widget": {"admin_key": admin_key_of("acme")},
    }


def _tenants() -> dict[str, object]:
    """`acme` has nothing special, `other` no origins; the rest are named after what they have."""
    reject = {"unknown_conversation": "reject"}
    strict = {name: reject for name in DIALECTS if name != "helper"}
    return {
        "acme": tenant("acme", dialects=_named_agents()),
        "other": tenant("other", cors_origins=None),
        "strict": tenant("strict", dialects=strict),
        "patient": tenant("patient", agent="patient"),
        "cut_off": tenant("cut_off", agent="cut_off"),
        "forgetful": tenant("forgetful", agent="waiter"),
        "rationed": tenant("rationed", requests_per_minute=2),
        # Helper's clients have spent one before they can chat.
        **{
            f"slow_{name}": tenant(f"slow_{name}", requests_per_minute=2 + (name == "helper"))
            for name in DIALECTS
        },
    }
