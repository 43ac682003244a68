import hashlib
import hmac
import json
from typing import Final

import pytest

from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.errors import BadRequest, HttpError, MailboxNotFound, Unauthorized
from gateway.messages import (
    NO_TERMS,
    Conversation,
    ConversationKey,
    Headers,
    Reply,
    RequestHead,
    Terms,
)
from gateway.neighbours.helper import (
    HelperConversations,
    HelperResume,
    HelperSessions,
    random_id,
    random_slug,
)
from gateway.stores.memory import MemoryStore

NOW: Final = 1_790_000_000.25
NOW_MS: Final = 1_790_000_000_250
HOUR_MS: Final = 3_600_000
EMAIL: Final = "Ada@example.com"
VISITOR: Final = "3f2b8c1e-5d4a-4e6f-9a7b-0c1d2e3f4a5b"
SECRETS: Final = {"acme": b"acme-acme-acme-acme-acme-acme-ac", "shop": b"shop" * 8}
TWO: Final = SessionTokens(
    {name: HelperTenant((secret,), "support") for name, secret in SECRETS.items()}
)
ONE: Final = SessionTokens({"acme": HelperTenant((SECRETS["acme"],), "support")})
HOSTS: Final = {"chat.acme.example": "acme", "Chat.Shop.example": "shop", "other.example": "other"}


def head(**fields: str | None) -> RequestHead:
    named = {"content-type": "application/json", "host": "127.0.0.1:8080", **fields}
    sent = tuple((name, value) for name, value in named.items() if value is not None)
    return RequestHead("POST", "/", "", Headers(sent))


async def session(
    body: object, *, tokens: SessionTokens = TWO, host: str = "127.0.0.1:8080"
) -> Reply:
    endpoint = HelperSessions(tokens, hosts=HOSTS, now=lambda: NOW, new_id=lambda: VISITOR)
    return await endpoint.answer(head(host=host), json.dumps(body).encode())


def auth(tenant: str = "acme", timestamp: int = NOW_MS, **changes: object) -> dict[str, object]:
    """What the document's `generateHelperAuth` makes."""
    message = f"{EMAIL}:{timestamp}".encode()
    made = hmac.new(SECRETS[tenant], message, hashlib.sha256).hexdigest()
    return {"email": EMAIL, "emailHash": made, "timestamp": timestamp, **changes}


def who(reply: Reply) -> tuple[str, str | None]:
    assert reply.status == 200, reply.body
    principal = TWO.authenticate(json.loads(reply.body)["token"], "helper", now=NOW)
    return principal.tenant, principal.identity


def error(reply: Reply) -> tuple[int, object]:
    return reply.status, json.loads(reply.body)


INVALID: Final = (400, {"error": "Invalid request parameters"})
NO_MAILBOX: Final = (400, {"error": "Invalid mailbox"})
MISSING: Final = (400, {"error": "Email authentication fields missing"})
TOO_OLD: Final = (401, {"valid": False, "error": "Timestamp is too far in the past"})
BAD_HASH: Final = (401, {"valid": False, "error": "Invalid HMAC signature"})


async def test_a_session_has_what_helpers_client_reads() -> None:
    reply = await session(auth())
    answer = json.loads(reply.body)
    assert answer.pop("token").count(".") == 2
    assert answer == {
        "valid": True,
        "supabaseUrl": "",
        "supabaseAnonKey": "",
        "showWidget": True,
        "notifications": [],
        "experimentalReadPage": None,
    }


@pytest.mark.parametrize("tenant", ["acme", "shop"])
async def test_the_secret_behind_the_hash_finds_the_tenant(tenant: str) -> None:
    assert who(await session(auth(tenant))) == (tenant, "email:ada@example.com")
    named = auth(tenant, mailboxSlug="acme", currentURL="https://x.example", customerMetadata={})
    assert who(await session(named)) == (tenant, "email:ada@example.com")


async def test_a_hash_may_be_in_capitals_and_its_time_a_float() -> None:
    made = auth()
    made["emailHash"] = str(made["emailHash"]).upper()
    made["timestamp"] = float(NOW_MS)
    assert who(await session(made)) == ("acme", "email:ada@example.com")


async def test_a_host_binds_its_sessions_to_its_tenant() -> None:
    host = "Chat.Acme.example.:443"
    assert who(await session(auth("acme"), host=host))[0] == "acme"
    assert error(await session(auth("shop"), host=host)) == BAD_HASH
    assert who(await session({"mailboxSlug": "shop"}, host=host))[0] == "acme"
    assert who(await session({}, host="chat.shop.example"))[0] == "shop"


async def test_a_host_of_a_tenant_without_helper_has_no_sessions() -> None:
    assert error(await session({}, host="other.example", tokens=ONE)) == NO_MAILBOX
    assert error(await session(auth(), host="other.example")) == NO_MAILBOX


async def test_an_anonymous_session_is_the_mailboxs_or_the_only_tenants() -> None:
    assert who(await session({"mailboxSlug": "shop"})) == ("shop", f"anonymous:{VISITOR}")
    assert who(await session({}, tokens=ONE)) == ("acme", f"anonymous:{VISITOR}")
    assert who(await session({"mailboxSlug": "gone"}, tokens=ONE))[0] == "acme"
    assert error(await session({})) == NO_MAILBOX
    assert error(await session({"mailboxSlug": "gone"})) == NO_MAILBOX


async def test_a_current_token_carries_an_anonymous_identity_over() -> None:
    mine = "11111111-2222-4333-8444-555555555555"

    async def carried(token: str) -> str | None:
        return who(await session({"mailboxSlug": "acme", "currentToken": token}))[1]

    current = TWO.mint("acme", now=NOW, anonymous_id=mine)
    assert await carried(current) == f"anonymous:{mine}"
    old = TWO.mint("acme", now=NOW - 700_000, anonymous_id=mine)
    foreign = TWO.mint("shop", now=NOW, anonymous_id=mine)
    named = TWO.mint("acme", now=NOW, email="ada@example.com")
    for token in (old, foreign, named, "", "x.y.z"):
        assert await carried(token) == f"anonymous:{VISITOR}"


@pytest.mark.parametrize("skew", [-HOUR_MS, 0, HOUR_MS])
async def test_a_timestamp_may_be_an_hour_off(skew: int) -> None:
    assert who(await session(auth(timestamp=NOW_MS + skew)))[0] == "acme"


@pytest.mark.parametrize("skew", [-HOUR_MS - 1, HOUR_MS + 1, 10**30])
async def test_a_timestamp_further_off_is_refused(skew: int) -> None:
    assert error(await session(auth(timestamp=NOW_MS + skew))) == TOO_OLD


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"emailHash": None}, MISSING),
        ({"emailHash": ""}, MISSING),
        ({"timestamp": None}, MISSING),
        ({"timestamp": 0}, MISSING),
        ({"emailHash": "0" * 64}, BAD_HASH),
        ({"emailHash": "é" * 64}, BAD_HASH),
        ({"emailHash": "ab " * 32}, BAD_HASH),
        ({"emailHash": "0" * 63}, BAD_HASH),
        ({"email": "eve@example.com"}, BAD_HASH),
        ({"email": "ada@example.com"}, BAD_HASH),
        ({"timestamp": NOW_MS - 1}, BAD_HASH),
        ({"email": 7}, INVALID),
        ({"email": ""}, INVALID),
        ({"email": "a b"}, INVALID),
        ({"email": "a" * 321}, INVALID),
        ({"emailHash": 7}, INVALID),
        ({"timestamp": str(NOW_MS)}, INVALID),
        ({"timestamp": NOW_MS + 0.5}, INVALID),
        ({"timestamp": True}, INVALID),
    ],
    ids=str,
)
async def test_an_email_needs_its_proof(
    changes: dict[str, object], answer: tuple[int, object]
) -> None:
    assert error(await session(auth() | changes)) == answer


@pytest.mark.parametrize("body", [[], None, "x", {"mailboxSlug": 7}, {"currentToken": []}])
async def test_a_session_needs_good_parameters(body: object) -> None:
    assert error(await session(body)) == INVALID


async def test_a_body_that_is_not_json() -> None:
    endpoint = HelperSessions(ONE, hosts={}, now=lambda: NOW)
    assert error(await endpoint.answer(head(), b"")) == INVALID
    with pytest.raises(HttpError):
        await endpoint.answer(head(**{"content-type": "text/plain"}), b"{}")


class Shelf(MemoryStore):
    """A store that notes what is created."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: NOW)
        self.created: list[tuple[ConversationKey, str | None, str | None]] = []

    async def create(
        self,
        key: ConversationKey,
        *,
        owner: str | None,
        subject: str | None,
        terms: Terms = NO_TERMS,
    ) -> Conversation:
        made = await super().create(key, owner=owner, subject=subject, terms=terms)
        self.created.append((key, owner, subject))
        return made


async def start(shelf: Shelf, body: object, *, bearer: str | None = None) -> Reply:
    endpoint = HelperConversations(TWO, shelf, now=lambda: NOW, new_slug=lambda: "slug1")
    token = TWO.mint("shop", now=NOW, email="ada@example.com")
    fields = head(authorization=f"Bearer {token}" if bearer is None else bearer)
    return await endpoint.answer(fields, json.dumps(body).encode())


async def test_a_conversation_belongs_to_the_tokens_identity() -> None:
    shelf = Shelf()
    reply = await start(shelf, {"isPrompt": False, "subject": "Shipping"})
    assert (reply.status, json.loads(reply.body)) == (200, {"conversationSlug": "slug1"})
    key = ConversationKey("shop", "helper", "slug1")
    assert shelf.created == [(key, "email:ada@example.com", "Shipping")]


@pytest.mark.parametrize("body", [{}, {"subject": None}, {"isPrompt": "?"}])
async def test_a_conversation_needs_no_subject(body: object) -> None:
    shelf = Shelf()
    await start(shelf, body)
    assert [subject for _, _, subject in shelf.created] == [None]


@pytest.mark.parametrize("body", [[], {"subject": 7}, {"subject": "x" * 1001}, {"subject": "\0"}])
async def test_a_conversation_with_a_bad_subject_is_not_made(body: object) -> None:
    shelf = Shelf()
    with pytest.raises(BadRequest):
        await start(shelf, body)
    assert shelf.created == []


@pytest.mark.parametrize("bearer", ["", "Bearer", "Bearer x.y.z", "Basic eDp5"])
async def test_a_conversation_needs_a_token_before_anything_else(bearer: str) -> None:
    shelf = Shelf()
    with pytest.raises(Unauthorized):
        await start(shelf, [], bearer=bearer)
    assert shelf.created == []


async def test_a_conversation_in_an_unknown_mailbox_is_not_made() -> None:
    other = SessionTokens({"gone": HelperTenant((SECRETS["acme"],), "support")})
    token = other.mint("gone", now=NOW, email="ada@example.com")
    with pytest.raises(MailboxNotFound):
        await start(Shelf(), {}, bearer=f"Bearer {token}")


def test_slugs_and_ids_are_random() -> None:
    slugs = {random_slug() for _ in range(1000)}
    assert len(slugs) == 1000
    assert all(len(slug) == 20 and slug.isascii() and slug.isalnum() for slug in slugs)
    assert all(slug == slug.lower() for slug in slugs)
    assert len({character for slug in slugs for character in slug}) == 36
    assert random_id() != random_id()
    ONE.mint("acme", now=NOW, anonymous_id=random_id())


async def test_there_is_never_a_stream_to_resume() -> None:
    head = RequestHead("GET", "/api/chat/abc/stream", "", Headers(), {"id": "abc"})
    reply = await HelperResume().answer(head, b"")
    assert (reply.status, reply.body) == (204, b"")
