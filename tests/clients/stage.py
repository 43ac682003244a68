"""Two gateways in front of a model that plays cases: one sends keep-alives early, one does not.

Every case has a tenant of its own, with keys, a mailbox and an agent whose model is named after
it. So a client's credential chooses the case, and the client may say what it is printed to say.
"""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.clients.cases import BY_WORD, CASES, KEEP_ALIVE_S, Case
from tests.clients.wires import Wire
from tests.e2e.config import EMAIL, config, key_of, secret_of, tenant, token_of, upstream
from tests.e2e.process import GatewayProcess
from tests.e2e.tls import server_settings
from tests.e2e.wire import Request
from tests.e2e.world import World
from tests.model_streams import openai_stream
from tests.upstream import Script, ScriptedUpstream, Seen, answer, stream

QUESTION: Final = "Grüße, 你好 🧑‍🚀: what now?"
"""What clients say that may say anything."""

_PATIENT: Final = {"connect_s": 5, "first_token_s": 20, "idle_s": 20, "total_s": 25}

SENTENCES: Final = {
    QUESTION,
    "What should we do next?",
    "Tell me about your services",
    "<string>",
}
"""All that the model may be asked: the question, and what the documents' samples say."""

TOOLS_GAVE: Final = 'They gave {"sky":"sunny","city":"Zürich"} and noon.'
"""What the model says once it is told what a client's own tools gave."""


@dataclass(frozen=True)
class Job:
    """One message that a client is to send: everything it has to be told.

    `url` is the gateway's without TLS, `tls_url` its other; `credential` a key or a session token,
    `secret` what a mailbox signs with, `conversation` the id of one that is open.
    """

    case: str
    url: str
    tls_url: str
    credential: str
    secret: str
    email: str
    conversation: str
    text: str = QUESTION


class Stage:
    """The gateways, `calm` and `restless`."""

    def __init__(self, calm: World, restless: World) -> None:
        self._worlds = {False: calm, True: restless}

    def world(self, case: Case) -> World:
        """The gateway behind which the case is played."""
        return self._worlds[case.restless]

    async def job(self, case: Case, wire: Wire) -> Job:
        """A message in a new conversation."""
        world, dialect = self.world(case), wire.chat.dialect
        helper = dialect == "helper"
        return Job(
            case.name,
            world.url,
            world.tls_url,
            token_of(case.word) if helper else key_of(case.word, dialect),
            secret_of(case.word),
            EMAIL,
            await world.conversation(wire.chat, tenant=case.word),
        )

    async def jobs(self, wire: Wire) -> list[dict[str, str]]:
        """A message for every case, as JSON has it."""
        return [asdict(await self.job(case, wire)) for case in CASES]

    def request(self, case: Case, wire: Wire, job: Job) -> Request:
        """The message as a request of the dialect's documents."""
        return wire.chat.request(job.conversation, job.text, tenant=case.word)

    async def turns(self) -> Counter[str]:
        """How many turns there were, by version of HTTP."""
        counts = Counter[str]()
        for world in self._worlds.values():
            counts += await world.gateway.by("chatgw_turns_total", "http_version")
        return counts


@asynccontextmanager
async def open_stage(directory: Path, origins: Sequence[str] = ()) -> AsyncIterator[Stage]:
    """Both gateways, with a listener under TLS each; pages of the origins may ask them."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ScriptedUpstream(_play))
        worlds = []
        for name, clocks in (("calm", {}), ("restless", {"stream_keep_alive_s": KEEP_ALIVE_S})):
            own = directory / name
            own.mkdir(parents=True)
            settings = _config(model.url, list(origins), clocks)
            gateway = await GatewayProcess(settings, own).start()
            stack.push_async_callback(gateway.stop)
            worlds.append(World(gateway, None))
        yield Stage(*worlds)


def _config(url: str, origins: list[str], limits: dict[str, float]) -> dict[str, object]:
    return config(
        {word: upstream(f"{url}/v1", model=word, **_PATIENT) for word in BY_WORD},
        agents={word: {"upstreams": [word]} for word in BY_WORD},
        tenants={
            word: tenant(
                word,
                agent=word,
                dialects={"hyperleap": {"tool_items": True}},
                cors_origins=origins or None,
            )
            for word in BY_WORD
        },
        server=server_settings(),
        limits=limits,
    )


def _play(seen: Seen) -> Script:
    """The case that the model is named after, if it was asked what somebody says."""
    document = seen.json
    messages = document["messages"]
    assert isinstance(messages, list)
    asked = [message["content"] for message in messages if message["role"] == "user"]
    if asked[-1] not in SENTENCES:
        return answer(500, {"error": {"message": f"nobody says {asked}"}})
    if messages[-1]["role"] == "tool":
        gave = [message["content"] for message in messages if message["role"] == "tool"]
        return stream(*openai_stream([f"They gave {' and '.join(gave)}."]))
    return BY_WORD[str(document["model"])].script
