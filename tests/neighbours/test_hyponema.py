from typing import Final

import pytest

from gateway.access.keys import KeyRing
from gateway.errors import BadRequest, HttpError, NotFound
from gateway.messages import ConversationKey, Principal, Terms
from gateway.neighbours.hyponema import HyponemaEnd, HyponemaSession, HyponemaStart
from tests.neighbours.desk import NOW, Desk, ask, said, told
from tests.stores.rig import add, make

ACME: Final = Principal("acme", "site", "default")
FREE: Final = Principal("free", "site", "default")
ASKED: Final[dict[str, object]] = {"agent_id": "agent_1", "user_id": "user_123"}
RING: Final = KeyRing([], {})
HOUR_LATER: Final = "2026-09-21T15:13:20.250Z"


class Hyponema(Desk):
    """Hyponema's endpoints over one store; the tenant `free` maps no agents."""

    def __init__(self) -> None:
        super().__init__()
        agents = {"acme": {"agent_1": "support", "agent_2": "sales"}, "free": {}}
        self.start = HyponemaStart(
            RING, self.store, agents, now=self.clock, new_id=lambda: "session-1"
        )
        self.show = HyponemaSession(RING, self.store, self.clock)
        self.end = HyponemaEnd(RING, self.store, self.clock)

    async def begin(self, principal: Principal = ACME, **more: object) -> dict[str, object]:
        return told(await ask(self.start, principal, {**ASKED, **more}), 201)

    async def terms(self, tenant: str = "acme") -> Terms:
        key = ConversationKey(tenant, "hyponema", "session-1")
        return (await self.store.load(key, messages=0)).terms

    async def status(self, session: str = "session-1") -> object:
        return told(await ask(self.show, ACME, id=session))["status"]


@pytest.fixture
def hyponema() -> Hyponema:
    return Hyponema()


class TestStart:
    async def test_the_answer_has_the_documented_members(self, hyponema: Hyponema) -> None:
        assert await hyponema.begin() == {
            "id": "session-1",
            "status": "pending",
            "ws_url": None,
            "chat_url": None,
            "token": None,
            "expires_at": HOUR_LATER,
        }

    async def test_what_the_client_gave_is_kept(self, hyponema: Hyponema) -> None:
        await hyponema.begin(
            modality="text", dynamic_variables={"name": "Größe"}, overrides={"a": 1}
        )
        assert await hyponema.terms() == Terms(
            agent="support",
            variables={"name": "Größe"},
            details={"agent_id": "agent_1", "user_id": "user_123", "modality": "text"},
        )

    async def test_without_a_mapping_every_agent_is_the_keys(self, hyponema: Hyponema) -> None:
        await hyponema.begin(FREE, agent_id="whatever")
        assert (await hyponema.terms("free")).agent is None

    async def test_with_one_an_unknown_agent_is_not_found(self, hyponema: Hyponema) -> None:
        with pytest.raises(NotFound):
            await hyponema.begin(agent_id="agent_3")

    @pytest.mark.parametrize("ttl", [1, 60, 60.0, 3600, 3601, 10**12, 1e300])
    async def test_a_session_ends_after_its_time_but_at_most_an_hour(
        self, hyponema: Hyponema, ttl: float
    ) -> None:
        await hyponema.begin(ttl_seconds=ttl)
        hyponema.now = NOW + min(ttl, 3600) - 0.5
        assert await hyponema.status() == "pending"
        hyponema.now += 0.5
        assert await hyponema.status() == "completed"

    async def test_without_a_time_it_stays_open(self, hyponema: Hyponema) -> None:
        await hyponema.begin(ttl_seconds=None)
        hyponema.now += 30 * 86_400
        assert await hyponema.status() == "pending"

    @pytest.mark.parametrize(
        "changes",
        [
            {"agent_id": None},
            {"agent_id": ""},
            {"agent_id": 7},
            {"agent_id": "x" * 257},
            {"user_id": None},
            {"user_id": ""},
            {"user_id": "a\0"},
            {"modality": "video"},
            {"modality": ["text"]},
            {"modality": ""},
            {"modality": 0},
            {"modality": False},
            {"modality": []},
            {"ttl_seconds": 0},
            {"ttl_seconds": -1},
            {"ttl_seconds": 1.5},
            {"ttl_seconds": 0.0},
            {"ttl_seconds": True},
            {"ttl_seconds": "60"},
            {"dynamic_variables": []},
            {"dynamic_variables": {"a": 1}},
            {"dynamic_variables": {"a": None}},
            {"dynamic_variables": {str(n): "" for n in range(101)}},
            {"dynamic_variables": {"a": "x" * 16_384}},
        ],
        ids=lambda changes: str(changes)[:40],
    )
    async def test_a_bad_member_is_refused(
        self, hyponema: Hyponema, changes: dict[str, object]
    ) -> None:
        with pytest.raises(BadRequest):
            await ask(hyponema.start, ACME, {**ASKED, **changes})
        assert (await hyponema.store.scan(limit=1)).conversations == ()

    async def test_it_takes_json_only(self, hyponema: Hyponema) -> None:
        with pytest.raises(HttpError):
            await ask(hyponema.start, ACME, ASKED, media_type="text/plain")


class TestLife:
    async def test_the_first_exchange_makes_it_run(self, hyponema: Hyponema) -> None:
        await hyponema.begin()
        key = ConversationKey("acme", "hyponema", "session-1")
        await add(hyponema.store, key, said(1))
        assert told(await ask(hyponema.show, ACME, id="session-1")) == {
            "id": "session-1",
            "status": "in_progress",
            "ws_url": None,
            "chat_url": None,
        }

    async def test_a_session_that_a_message_made_is_one_like_any_other(
        self, hyponema: Hyponema
    ) -> None:
        key = ConversationKey("acme", "hyponema", "mine")
        await make(hyponema.store, key)
        await add(hyponema.store, key, said(1))
        assert await hyponema.status("mine") == "in_progress"
        assert told(await ask(hyponema.end, ACME, {}, id="mine"))["status"] == "completed"

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"status": "completed", "reason": "User closed the widget."}, "completed"),
            ({"status": "failed"}, "failed"),
            ({}, "completed"),
            (None, "completed"),
        ],
    )
    async def test_ending_is_final_and_may_be_repeated(
        self, hyponema: Hyponema, body: object, status: str
    ) -> None:
        await hyponema.begin()
        ended = told(await ask(hyponema.end, ACME, body, id="session-1"))
        assert ended == {"id": "session-1", "status": status, "ws_url": None, "chat_url": None}
        for again in ({"status": "failed"}, {"status": "completed"}):
            assert told(await ask(hyponema.end, ACME, again, id="session-1")) == ended
        assert await hyponema.status() == status

    async def test_a_session_whose_time_is_over_cannot_fail_any_more(
        self, hyponema: Hyponema
    ) -> None:
        await hyponema.begin(ttl_seconds=10)
        hyponema.now += 11
        body = {"status": "failed"}
        assert told(await ask(hyponema.end, ACME, body, id="session-1"))["status"] == "completed"

    @pytest.mark.parametrize(
        "body",
        [
            {"status": "done"},
            {"status": None},
            {"status": ["failed"]},
            [],
            {"reason": 7},
            {"reason": "x" * 1001},
        ],
        ids=lambda body: str(body)[:30],
    )
    async def test_a_bad_end_ends_nothing(self, hyponema: Hyponema, body: object) -> None:
        await hyponema.begin()
        with pytest.raises(BadRequest):
            await ask(hyponema.end, ACME, body, id="session-1")
        assert await hyponema.status() == "pending"

    @pytest.mark.parametrize(
        ("principal", "session"),
        [(FREE, "session-1"), (ACME, "session-2"), (ACME, "a b"), (ACME, "x" * 129)],
    )
    async def test_a_foreign_session_is_an_unknown_one(
        self, hyponema: Hyponema, principal: Principal, session: str
    ) -> None:
        await hyponema.begin()
        with pytest.raises(NotFound):
            await ask(hyponema.show, principal, id=session)
        with pytest.raises(NotFound):
            await ask(hyponema.end, principal, {}, id=session)
        assert await hyponema.status() == "pending"
