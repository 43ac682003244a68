"""Session tokens of the Helper Chat API: who a widget's visitor is, and whose.

A token is a compact JWT (RFC 7519), signed with HS256 and with nothing else. Its header holds
`alg` and `typ` only: a token that names a key, a key's address or an extension (RFC 7515,
section 4.1) is refused unread. It says who by exactly one of `email` and `anonymousSessionId` (a
UUID), and must have whole numbers `iat` and `exp`, at most 12 hours apart with an e-mail and 7
days without. `nbf` is honoured. No audience or issuer is ever expected here, so a token with
`aud` or `iss` is meant for somebody else (RFC 7519, section 4.1.3).

The secret identifies the tenant (Helper's mailbox). A `mailbox` claim with a configured name
narrows the search to that tenant's secrets.

Identities are `email:<address>` and `anonymous:<uuid>`. Addresses are compared without regard to
the case of A to Z and only those: folding more would make one visitor of two.
"""

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import jwt
import orjson
from jwt.algorithms import HMACAlgorithm

from gateway.errors import Forbidden, MailboxNotFound, Unauthorized
from gateway.messages import Principal

DIALECT: Final = "helper"
MAX_TOKEN_BYTES: Final = 4096
MIN_SECRET_BYTES: Final = 32
EMAIL_LIFE_S: Final = 12 * 3600
ANONYMOUS_LIFE_S: Final = 7 * 24 * 3600
ANONYMOUS: Final = "anonymous:"

_MAX_EMAIL: Final = 320
# A host that mints tokens may have a clock that runs ahead of ours.
_IAT_LEEWAY_S: Final = 30
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TO_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_JWS: Final = jwt.PyJWS(algorithms=["HS256"])
_HS256: Final = HMACAlgorithm(HMACAlgorithm.SHA256)
# No configured key can have this name, so its limits are nobody else's.
_KEY_NAME: Final = "session-token"


@dataclass(frozen=True, slots=True)
class HelperTenant:
    """A tenant that Helper clients may use; the first secret signs, every one verifies."""

    secrets: tuple[bytes, ...] = field(repr=False)
    agent: str


@dataclass(frozen=True, slots=True)
class _Token:
    signed: bytes
    signature: bytes
    claims: Mapping[str, object]


class SessionTokens:
    """Makes and verifies tokens; implements `Authenticator`.

    Raises `ValueError` for a tenant without a secret, a secret under 32 bytes, and a secret that
    two tenants share (it could not tell them apart).
    """

    def __init__(self, tenants: Mapping[str, HelperTenant]) -> None:
        owners: dict[bytes, str] = {}
        for name, tenant in tenants.items():
            if not tenant.secrets:
                raise ValueError(f"tenant {name!r} has no session secret")
            for secret in tenant.secrets:
                if len(secret) < MIN_SECRET_BYTES:
                    raise ValueError(
                        f"a session secret of tenant {name!r} is under {MIN_SECRET_BYTES} bytes"
                    )
                if owners.setdefault(secret, name) != name:
                    raise ValueError(f"tenants {owners[secret]!r} and {name!r} share a secret")
        self._tenants = dict(tenants)

    @property
    def tenants(self) -> tuple[str, ...]:
        """The names of all tenants that have session tokens."""
        return tuple(self._tenants)

    def authenticate(self, credential: str, dialect: str, *, now: float) -> Principal:
        """Who a token speaks for; `now` in epoch seconds.

        Raises `Unauthorized` for whatever is wrong with it, `MailboxNotFound` if it is good but
        names no configured tenant, and `Forbidden` on another dialect.
        """
        token = _parse(credential)
        tenant = self._verify(token)
        identity = _identity(token.claims, now)
        if token.claims.get("mailbox") not in (None, *self._tenants):
            raise MailboxNotFound("the token names no configured mailbox")
        if dialect != DIALECT:
            raise Forbidden("a session token is for helper only")
        return Principal(tenant, _KEY_NAME, self._tenants[tenant].agent, identity)

    def mint(
        self,
        tenant: str,
        *,
        now: float,
        email: str | None = None,
        anonymous_id: str | None = None,
        life_s: int | None = None,
    ) -> str:
        """A token for one e-mail address or one anonymous session, as long-lived as it may be
        unless `life_s` says less. Raises `ValueError` for what would not verify."""
        if tenant not in self._tenants:
            raise ValueError(f"tenant {tenant!r} has no session secret")
        who = {"email": email} if email is not None else {"anonymousSessionId": anonymous_id}
        issued = int(now)
        longest = ANONYMOUS_LIFE_S if email is None else EMAIL_LIFE_S
        claims: dict[str, object] = {
            **who,
            "isAnonymous": email is None,
            "mailbox": tenant,
            "iat": issued,
            "exp": issued + (longest if life_s is None else life_s),
        }
        try:
            _identity(claims | {"anonymousSessionId": anonymous_id}, now)
        except Unauthorized as error:
            raise ValueError(str(error)) from error
        return _JWS.encode(orjson.dumps(claims), self._tenants[tenant].secrets[0], "HS256")

    def signer(self, message: bytes, digest: bytes, among: Iterable[str]) -> str | None:
        """The first of the tenants one of whose secrets made this HMAC-SHA256 of the message."""
        for name in among:
            for secret in self._tenants[name].secrets:
                if hmac.compare_digest(hmac.digest(secret, message, "sha256"), digest):
                    return name
        return None

    def _verify(self, token: _Token) -> str:
        claimed = token.claims.get("mailbox")
        if isinstance(claimed, str) and claimed in self._tenants:
            names: Iterable[str] = (claimed,)
        else:
            names = self._tenants
        for name in names:
            for secret in self._tenants[name].secrets:
                if _HS256.verify(token.signed, secret, token.signature):
                    return name
        raise Unauthorized("no secret verifies the token")


def _parse(text: str) -> _Token:
    # The pattern also keeps out the padding that the library would let pass.
    if len(text) > MAX_TOKEN_BYTES or not _COMPACT.fullmatch(text):
        raise Unauthorized("the token is malformed")
    try:
        parts = _JWS.decode_complete(text, options={"verify_signature": False})
        claims = orjson.loads(parts["payload"])
    except (jwt.InvalidTokenError, ValueError) as error:
        raise Unauthorized("the token is malformed") from error
    header = parts["header"]
    if header.get("alg") != "HS256" or not header.keys() <= {"alg", "typ"}:
        raise Unauthorized("the token's header is not allowed")
    if not isinstance(claims, dict):
        raise Unauthorized("the token's claims are no object")
    return _Token(text.rpartition(".")[0].encode("ascii"), parts["signature"], claims)


def _identity(claims: Mapping[str, object], now: float) -> str:
    """Who the claims are about. Raises `Unauthorized` if they are not good at `now`."""
    email, anonymous = claims.get("email"), claims.get("anonymousSessionId")
    if (email is None) == (anonymous is None):
        raise Unauthorized("the token must name one identity")
    if "aud" in claims or "iss" in claims:
        raise Unauthorized("the token is meant for somebody else")
    _check_times(claims, now, ANONYMOUS_LIFE_S if email is None else EMAIL_LIFE_S)
    kind, name = ("email:", email) if anonymous is None else (ANONYMOUS, anonymous)
    identity = identity_named(f"{kind}{name}") if isinstance(name, str) else None
    if identity is not None:
        return identity
    raise Unauthorized("the token's identity is malformed")


def identity_named(text: str) -> str | None:
    """The identity that `email:…` or `anonymous:…` names, as a token's claims give it; None if no
    token could."""
    kind, _, name = text.partition(":")
    if kind == "email" and is_email(name):
        return text.translate(_TO_LOWER)
    if f"{kind}:" == ANONYMOUS and _UUID.fullmatch(name.lower()):
        return text.lower()
    return None


def is_email(text: str) -> bool:
    """Whether a text can stand for a visitor: 1 to 320 printable characters, no spaces."""
    return 0 < len(text) <= _MAX_EMAIL and text.isprintable() and " " not in text


def _check_times(claims: Mapping[str, object], now: float, longest: int) -> None:
    issued, expires = _seconds(claims.get("iat")), _seconds(claims.get("exp"))
    if not 0 < expires - issued <= longest:
        raise Unauthorized("the token's life is too long or none")
    if now >= expires or issued > now + _IAT_LEEWAY_S:
        raise Unauthorized("the token is expired or not yet issued")
    if "nbf" in claims and now < _seconds(claims["nbf"]):
        raise Unauthorized("the token is not valid yet")


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unauthorized("a time of the token is missing or no whole number")
    return value
