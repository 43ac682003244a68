import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.admin_keys import AdminKeys, AdminTenant
from gateway.access.keys import KeyRing
from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.errors import RequestError
from gateway.messages import ConversationKey, Headers, Principal, Reply, RequestHead
from gateway.neighbours import keyed_endpoints
from gateway.ports.routes import Endpoint
from gateway.stores import MemoryStore
from tests.fuzz.inputs import CONVERSATION, json_values
from tests.neighbours.desk import said
from tests.stores.rig import add

ADA = Principal("acme", "key", "default", "email:ada@example.com")
MAPPED = {"acme": {"known": "support"}}
VISITORS = SessionTokens({"acme": HelperTenant((b"acme" * 8,), "default")})
ADMINS = AdminKeys({"acme": AdminTenant("k" * 24, "default")})
KNOWN = {
    "agent_id": "known",
    "user_id": "u",
    "modality": "text",
    "ttl_seconds": 60,
    "dynamic_variables": {"a": "b"},
    "status": "failed",
    "reason": "r",
    "aiSystem": 1,
    "model": "m",
    "replacements": {"a": 1},
    "metadata": {},
    "subject": "s",
    "configuration": {},
    "personaId": "known",
    "personaVersionId": "v",
    "markRead": True,
    "externalUserId": "u",
    "systemMessage": "s",
}
endpoints = st.integers(0, 13)
names = st.sampled_from(sorted(KNOWN))
members = st.dictionaries(names, json_values, max_size=3).map(lambda wrong: {**KNOWN, **wrong})
bodies = st.one_of(
    st.binary(max_size=50),
    json_values.map(lambda value: json.dumps(value).encode()),
    members.map(lambda value: json.dumps(value).encode()),
)
values = st.one_of(
    st.text(max_size=20), st.sampled_from(["1", "10", "1.0:1", "false", CONVERSATION])
)
queries = st.lists(
    st.tuples(st.sampled_from(["limit", "cursor", "continuationToken", "markRead"]), values),
    max_size=3,
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))


def store_of(dialect: str) -> MemoryStore:
    """With one conversation, of the visitor's own."""
    store = MemoryStore(clock=lambda: 1_790_000_000.0)
    key = ConversationKey("acme", dialect, CONVERSATION)
    owner = ADA.identity if dialect == "helper" else None
    asyncio.run(_fill(store, key, owner))
    return store


async def _fill(store: MemoryStore, key: ConversationKey, owner: str | None) -> None:
    await store.create(key, owner=owner, subject=None)
    await add(store, key, said(1))


def made(store: MemoryStore) -> tuple[Endpoint, ...]:
    return keyed_endpoints(
        store,
        keys=KeyRing([], {}),
        visitors=VISITORS,
        admins=ADMINS,
        session_agents=MAPPED,
        personas=MAPPED,
        models={"default": "m", "support": "n"},
        now=lambda: 1_790_000_000.0,
        new_id=lambda: "made-here",
    )


def test_every_endpoint_is_tried() -> None:
    assert len(made(MemoryStore())) == 14


@given(st.data(), endpoints, bodies, queries, values)
def test_an_endpoint_answers_or_refuses(
    data: st.DataObject, place: int, body: bytes, query: str, id_: str
) -> None:
    dialect = made(MemoryStore())[place].dialect
    endpoint = made(store_of(dialect))[place]
    kind = data.draw(st.sampled_from(["application/json", "text/plain", ""]))
    head = RequestHead(
        endpoint.routes[0].method,
        "/",
        query,
        Headers((("content-type", kind),)),
        {"id": id_, "slug": id_},
    )
    try:
        reply = asyncio.run(_answer(endpoint, head, body))
    except RequestError:
        return
    assert (reply.status < 300) == (reply.refused is None)
    assert json.loads(reply.body)
    assert dict(reply.headers)["cache-control"] == "no-store"


async def _answer(endpoint: Endpoint, head: RequestHead, body: bytes) -> Reply:
    return await endpoint.answer(head, body, ADA)
