import hashlib
import hmac
import json
from typing import Final

import pytest

from gateway.access.session_tokens import HelperTenant, SessionTokens
from gateway.errors import HttpError, RateLimited
from gateway.messages import Headers, Reply, RequestHead
from gateway.neighbours.helper_sessions import HelperSessions, random_id
from gateway.ports.routes import Admit

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


async def anyone(tenant: str) -> None:
    """Admits every tenant."""


class Gate(list[str]):
    """Notes whom it admits."""

    async def admit(self, tenant: str) -> None:
        self.append(tenant)


async def session(
    body: object,
    *,
    tokens: SessionTokens = TWO,
    host: str = "127.0.0.1:8080",
    admit: Admit = anyone,
) -> Reply:
    endpoint = HelperSessions(tokens, hosts=HOSTS, now=lambda: NOW, new_id=lambda: VISITOR)
    return await endpoint.answer(head(host=host), json.dumps(body).encode(), admit)


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
    assert reply.refused == {400: "bad_request", 401: "unauthorized"}[reply.status]
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
    assert error(await endpoint.answer(head(), b"", anyone)) == INVALID
    with pytest.raises(HttpError):
        await endpoint.answer(head(**{"content-type": "text/plain"}), b"{}", anyone)


@pytest.mark.parametrize("tenant", ["acme", "shop"])
async def test_a_tenant_is_admitted_once_it_is_known(tenant: str) -> None:
    seen = Gate()
    await session(auth(tenant), admit=seen.admit)
    await session({"mailboxSlug": tenant}, admit=seen.admit)
    await session({}, host=f"chat.{tenant}.example", admit=seen.admit)
    assert seen == [tenant] * 3


@pytest.mark.parametrize(
    "body", [{}, {"mailboxSlug": "gone"}, auth(emailHash="0" * 64), auth(timestamp=1), []], ids=str
)
async def test_nobody_is_admitted_before_that(body: object) -> None:
    seen = Gate()
    reply = await session(body, admit=seen.admit)
    assert (reply.status in (400, 401), seen) == (True, [])


async def test_a_tenant_that_is_not_admitted_gets_no_token() -> None:
    async def refuse(tenant: str) -> None:
        raise RateLimited(tenant)

    for body in (auth(), {"mailboxSlug": "acme"}):
        with pytest.raises(RateLimited):
            await session(body, admit=refuse)


def test_visitors_ids_are_random() -> None:
    assert random_id() != random_id()
    ONE.mint("acme", now=NOW, anonymous_id=random_id())
