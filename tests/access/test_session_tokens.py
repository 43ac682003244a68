import base64
import hashlib
import hmac
import json
from typing import Final

import pytest

from gateway.access.session_tokens import (
    ANONYMOUS_LIFE_S,
    EMAIL_LIFE_S,
    MAX_TOKEN_BYTES,
    HelperTenant,
    SessionTokens,
)
from gateway.errors import Forbidden, MailboxNotFound, Unauthorized
from gateway.messages import Principal

NOW: Final = 1_790_000_000
ACME: Final = b"acme-acme-acme-acme-acme-acme-ac"
ACME_OLD: Final = b"old--old--old--old--old--old--ol"
SHOP: Final = b"shop-shop-shop-shop-shop-shop-sh"
STRANGER: Final = b"nobody-knows-this-secret-of-mine"
VISITOR: Final = "3f2b8c1e-5d4a-4e6f-9a7b-0c1d2e3f4a5b"
HEADER: Final = {"alg": "HS256", "typ": "JWT"}


@pytest.fixture
def tokens() -> SessionTokens:
    return SessionTokens(
        {
            "acme": HelperTenant((ACME, ACME_OLD), "support"),
            "shop": HelperTenant((SHOP,), "sales"),
        }
    )


def encoded(value: object) -> str:
    return unpadded(json.dumps(value).encode())


def unpadded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def signed(claims: object, secret: bytes = ACME, header: object = HEADER) -> str:
    """A token made by RFC 7515, appendix A.1, without the library that the gateway uses."""
    text = f"{encoded(header)}.{encoded(claims)}"
    return f"{text}.{unpadded(hmac.digest(secret, text.encode(), 'sha256'))}"


def claims(**changes: object) -> dict[str, object]:
    made: dict[str, object] = {"email": "ada@example.com", "iat": NOW, "exp": NOW + 3600}
    return {name: value for name, value in (made | changes).items() if value is not ...}


def anonymous(**changes: object) -> dict[str, object]:
    return claims(email=..., **{"anonymousSessionId": VISITOR, **changes})


def test_a_token_of_helpers_own_form_names_its_visitor(tokens: SessionTokens) -> None:
    own = claims(
        showWidget=True,
        isWhitelabel=False,
        title="Acme",
        isAnonymous=False,
        exp=NOW + EMAIL_LIFE_S,
    )
    assert tokens.authenticate(signed(own), "helper", now=NOW) == Principal(
        "acme", "session-token", "support", "email:ada@example.com"
    )


def test_an_anonymous_token_may_live_for_a_week(tokens: SessionTokens) -> None:
    token = signed(anonymous(exp=NOW + ANONYMOUS_LIFE_S), SHOP)
    assert tokens.authenticate(token, "helper", now=NOW) == Principal(
        "shop", "session-token", "sales", f"anonymous:{VISITOR}"
    )


@pytest.mark.parametrize(
    ("secret", "mailbox", "tenant"),
    [
        (ACME, ..., "acme"),
        (ACME_OLD, ..., "acme"),
        (SHOP, ..., "shop"),
        (SHOP, None, "shop"),
        (ACME_OLD, "acme", "acme"),
        (SHOP, "shop", "shop"),
    ],
)
def test_the_secret_identifies_the_tenant(
    tokens: SessionTokens, secret: bytes, mailbox: object, tenant: str
) -> None:
    token = signed(claims(mailbox=mailbox), secret)
    assert tokens.authenticate(token, "helper", now=NOW).tenant == tenant


@pytest.mark.parametrize("mailbox", ["gone", "", "ACME", 7, ["acme"], {"acme": 1}])
def test_a_good_token_of_an_unknown_mailbox_is_told_so(
    tokens: SessionTokens, mailbox: object
) -> None:
    with pytest.raises(MailboxNotFound):
        tokens.authenticate(signed(claims(mailbox=mailbox)), "helper", now=NOW)


def test_an_unknown_mailbox_is_no_reason_to_name_it_before_the_token_is_good(
    tokens: SessionTokens,
) -> None:
    expired = signed(claims(mailbox="gone", exp=NOW))
    forged = signed(claims(mailbox="gone"), STRANGER)
    for token in (expired, forged):
        with pytest.raises(Unauthorized):
            tokens.authenticate(token, "helper", now=NOW)


def test_a_secret_of_one_tenant_does_not_speak_for_another(tokens: SessionTokens) -> None:
    with pytest.raises(Unauthorized):
        tokens.authenticate(signed(claims(mailbox="shop"), ACME), "helper", now=NOW)


def test_a_good_token_on_another_dialect_is_forbidden(tokens: SessionTokens) -> None:
    with pytest.raises(Forbidden):
        tokens.authenticate(signed(claims()), "widget", now=NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        claims(email=...),
        claims(email=None),
        claims(anonymousSessionId=VISITOR),
        claims(email=""),
        claims(email="a b@example.com"),
        claims(email="a\n@example.com"),
        claims(email=7),
        claims(email="a" * 321),
        anonymous(anonymousSessionId="visitor"),
        anonymous(anonymousSessionId=f"{{{VISITOR}}}"),
        anonymous(anonymousSessionId=7),
        claims(exp=...),
        claims(iat=...),
        claims(exp=None),
        claims(exp=str(NOW + 3600)),
        claims(exp=NOW + 3600.5),
        claims(exp=float(NOW + 3600)),
        claims(exp=True),
        claims(iat=str(NOW)),
        claims(exp=NOW),
        claims(exp=NOW - 1, iat=NOW - 60),
        claims(exp=NOW + 315_360_000),
        claims(exp=NOW + 10**30),
        claims(exp=NOW + EMAIL_LIFE_S + 1),
        anonymous(exp=NOW + ANONYMOUS_LIFE_S + 1),
        claims(iat=NOW + 31),
        claims(iat=NOW + 315_360_000, exp=NOW + 315_363_600),
        claims(nbf=NOW + 1),
        claims(nbf="soon"),
        claims(nbf=None),
        claims(aud="somebody"),
        claims(iss="somebody"),
        [],
        "ada@example.com",
        None,
    ],
    ids=str,
)
def test_claims_that_are_not_as_strict_as_they_must_be(
    tokens: SessionTokens, wrong: object
) -> None:
    with pytest.raises(Unauthorized):
        tokens.authenticate(signed(wrong), "helper", now=NOW)


@pytest.mark.parametrize(
    ("good", "now"),
    [
        (claims(), NOW + 3599.9),
        (claims(iat=NOW + 30), NOW),
        (claims(nbf=NOW), NOW),
        (claims(email=None, anonymousSessionId=VISITOR), NOW),
        (claims(anonymousSessionId=None), NOW),
        (claims(aud=...), NOW),
        (claims(email="ü@example.com"), NOW),
    ],
    ids=str,
)
def test_claims_that_are_just_good_enough(tokens: SessionTokens, good: object, now: float) -> None:
    assert tokens.authenticate(signed(good), "helper", now=now).tenant == "acme"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None", "typ": "JWT"},
        {"alg": "HS384", "typ": "JWT"},
        {"alg": "HS512", "typ": "JWT"},
        {"alg": "RS256", "typ": "JWT"},
        {"alg": "hs256", "typ": "JWT"},
        {"alg": ["HS256"], "typ": "JWT"},
        {"typ": "JWT"},
        HEADER | {"kid": "1"},
        HEADER | {"kid": "../../etc/passwd"},
        HEADER | {"kid": 7},
        HEADER | {"jku": "https://example.com/keys"},
        HEADER | {"x5u": "https://example.com/keys"},
        HEADER | {"x5c": ["AA"]},
        HEADER | {"jwk": {"kty": "oct", "k": "AA"}},
        HEADER | {"crit": ["exp"], "exp": 1},
        HEADER | {"crit": ["b64"], "b64": False},
        HEADER | {"b64": True},
        HEADER | {"zip": "DEF"},
        HEADER | {"cty": "JWT"},
        [],
        "HS256",
        None,
    ],
    ids=str,
)
def test_a_header_with_anything_but_hs256_is_refused(tokens: SessionTokens, header: object) -> None:
    with pytest.raises(Unauthorized):
        tokens.authenticate(signed(claims(), header=header), "helper", now=NOW)


def test_a_header_without_a_type_is_good(tokens: SessionTokens) -> None:
    token = signed(claims(), header={"alg": "HS256"})
    assert tokens.authenticate(token, "helper", now=NOW).tenant == "acme"


@pytest.mark.parametrize("name", ["sha384", "sha512", "sha1", "md5"])
def test_a_signature_of_another_hash_is_refused(tokens: SessionTokens, name: str) -> None:
    text = f"{encoded(HEADER)}.{encoded(claims())}"
    token = f"{text}.{unpadded(hmac.digest(ACME, text.encode(), name))}"
    with pytest.raises(Unauthorized):
        tokens.authenticate(token, "helper", now=NOW)


GOOD: Final = signed(claims())
BODY: Final = GOOD.rpartition(".")[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        BODY,
        f"{BODY}.",
        f"{BODY}.AAAA",
        f"{GOOD}=",
        f"{GOOD}.{GOOD}",
        f" {GOOD}",
        f"{GOOD}\n",
        f"{GOOD}A",
        GOOD[:-1],
        GOOD.replace(".", "=.", 1),
        GOOD.replace(".", "..", 1),
        f"é{GOOD}",
        "\ud800",
        f"{unpadded(b'{')}.{unpadded(b'{}')}.AA",
        f"{encoded(HEADER)}.{unpadded(b'[' * 1500)}.AA",
        f"{unpadded(b'[' * 1500)}.{encoded(claims())}.AA",
        f"{encoded(HEADER)}.{unpadded(bytes([0xFF, 0xFE]))}.AA",
        GOOD + "A" * 1_000_000,
        "A" * 1_000_000,
    ],
    ids=lambda text: ascii(text[:40]),
)
def test_malformed_text_is_refused(tokens: SessionTokens, text: str) -> None:
    with pytest.raises(Unauthorized):
        tokens.authenticate(text, "helper", now=NOW)


def test_any_changed_character_is_refused(tokens: SessionTokens) -> None:
    for at, character in enumerate(GOOD):
        other = "A" if character != "A" else "B"
        with pytest.raises((Unauthorized, MailboxNotFound)):
            tokens.authenticate(GOOD[:at] + other + GOOD[at + 1 :], "helper", now=NOW)


def test_a_token_is_refused_for_its_size_alone(tokens: SessionTokens) -> None:
    fits = signed(claims(title="x" * 2900))
    assert len(fits) <= MAX_TOKEN_BYTES
    assert tokens.authenticate(fits, "helper", now=NOW).tenant == "acme"
    long = signed(claims(title="x" * 3000))
    assert len(long) > MAX_TOKEN_BYTES
    with pytest.raises(Unauthorized):
        tokens.authenticate(long, "helper", now=NOW)


@pytest.mark.parametrize(
    ("email", "identity"),
    [
        ("Ada@Example.COM", "email:ada@example.com"),
        ("ÄDA@example.com", "email:Äda@example.com"),
        ("\u212aate@example.com", "email:\u212aate@example.com"),
    ],
)
def test_only_the_case_of_ascii_letters_is_folded(
    tokens: SessionTokens, email: str, identity: str
) -> None:
    token = signed(claims(email=email))
    assert tokens.authenticate(token, "helper", now=NOW).identity == identity


def test_an_anonymous_id_has_one_spelling(tokens: SessionTokens) -> None:
    token = signed(anonymous(anonymousSessionId=VISITOR.upper()))
    identity = tokens.authenticate(token, "helper", now=NOW).identity
    assert identity == f"anonymous:{VISITOR}"


def test_errors_and_reprs_hold_neither_secret_nor_claim(tokens: SessionTokens) -> None:
    assert ACME.decode() not in repr(HelperTenant((ACME,), "support"))
    with pytest.raises(Unauthorized) as caught:
        tokens.authenticate(signed(claims(exp=NOW)), "helper", now=NOW)
    assert "ada" not in str(caught.value)
    with pytest.raises(ValueError, match="share a secret") as shared:
        SessionTokens({"a": HelperTenant((ACME,), "x"), "b": HelperTenant((ACME,), "x")})
    assert ACME.decode() not in str(shared.value)


@pytest.mark.parametrize("secrets", [(), (b"x" * 31,), (ACME, b"short")])
def test_a_tenant_needs_secrets_of_32_bytes(secrets: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="secret"):
        SessionTokens({"acme": HelperTenant(secrets, "support")})


def test_a_minted_token_lasts_as_long_as_it_may(tokens: SessionTokens) -> None:
    named = tokens.mint("shop", now=NOW + 0.7, email="ada@example.com")
    visitor = tokens.mint("acme", now=NOW, anonymous_id=VISITOR)
    for token, life in ((named, EMAIL_LIFE_S), (visitor, ANONYMOUS_LIFE_S)):
        tokens.authenticate(token, "helper", now=NOW + life - 1)
        with pytest.raises(Unauthorized):
            tokens.authenticate(token, "helper", now=NOW + life)
    assert tokens.authenticate(named, "helper", now=NOW) == Principal(
        "shop", "session-token", "sales", "email:ada@example.com"
    )
    assert tokens.authenticate(visitor, "helper", now=NOW).identity == f"anonymous:{VISITOR}"


def test_a_minted_token_is_what_any_jwt_library_makes(tokens: SessionTokens) -> None:
    token = tokens.mint("acme", now=NOW, email="ada@example.com", life_s=60)
    header, payload, signature = token.split(".")
    made = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert made == {
        "email": "ada@example.com",
        "isAnonymous": False,
        "mailbox": "acme",
        "iat": NOW,
        "exp": NOW + 60,
    }
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == HEADER
    digest = hmac.new(ACME, f"{header}.{payload}".encode(), hashlib.sha256).digest()
    assert signature == unpadded(digest)


def test_nothing_is_minted_that_would_not_verify(tokens: SessionTokens) -> None:
    with pytest.raises(ValueError, match="one identity"):
        tokens.mint("acme", now=NOW)
    with pytest.raises(ValueError, match="one identity"):
        tokens.mint("acme", now=NOW, email="ada@example.com", anonymous_id=VISITOR)
    with pytest.raises(ValueError, match="life"):
        tokens.mint("acme", now=NOW, email="ada@example.com", life_s=EMAIL_LIFE_S + 1)
    with pytest.raises(ValueError, match="life"):
        tokens.mint("acme", now=NOW, email="ada@example.com", life_s=0)
    with pytest.raises(ValueError, match="malformed"):
        tokens.mint("acme", now=NOW, anonymous_id="me")
    with pytest.raises(ValueError, match="gone"):
        tokens.mint("gone", now=NOW, email="ada@example.com")


def test_the_signer_of_a_message_is_found_among_those_asked(tokens: SessionTokens) -> None:
    digest = hmac.digest(ACME_OLD, b"message", "sha256")
    assert tokens.tenants == ("acme", "shop")
    assert tokens.signer(b"message", digest, ("shop", "acme")) == "acme"
    assert tokens.signer(b"message", digest, ("shop",)) is None
    assert tokens.signer(b"message!", digest, ("shop", "acme")) is None
