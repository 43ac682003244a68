"""The session that a Helper client asks for before anything else.

    POST /api/widget/session    {email?, emailHash?, timestamp?, currentToken?, mailboxSlug?}
                                -> {"valid": true, "token", …}

`emailHash` is the hex HMAC-SHA256, under one of the tenant's session secrets, of
`<email>:<timestamp>`; the timestamp is in milliseconds and may be an hour off either way. Without
an e-mail the session is anonymous, and `currentToken` keeps its identity. The tenant is the one
that the host belongs to, else whose secret made the hash, else that `mailboxSlug` names, else the
only one; it is admitted as soon as it is known. Members that are not named here are ignored.
Supabase's settings are empty: there is no such channel here. Source: vendor's page "Session API"
and its client; the texts of errors are those that its server gives.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from gateway.access.session_tokens import ANONYMOUS, DIALECT, SessionTokens, is_email
from gateway.errors import BadRequest, MailboxNotFound, Unauthorized
from gateway.messages import Reply, RequestHead
from gateway.ports.routes import Admit, Route
from gateway.replies import json_reply
from gateway.requests import (
    bad_field,
    is_json,
    optional_text,
    parse_json_object,
    require_media_type,
)

_SKEW_MS: Final = 3_600_000
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")
_PORT: Final = re.compile(r":[0-9]*\Z")


def random_id() -> str:
    """An anonymous session's id: a random UUID."""
    return str(uuid.uuid4())


class HelperSessions:
    """Makes session tokens. `hosts` maps host names to tenants, `now` reads epoch seconds,
    `new_id` makes UUIDs."""

    dialect = DIALECT
    routes: tuple[Route, ...] = (Route("POST", "/api/widget/session"),)

    def __init__(
        self,
        tokens: SessionTokens,
        hosts: Mapping[str, str],
        *,
        now: Callable[[], float],
        new_id: Callable[[], str] = random_id,
    ) -> None:
        self._tokens = tokens
        self._hosts = {host.lower(): tenant for host, tenant in hosts.items()}
        self._now = now
        self._new_id = new_id

    async def answer(self, head: RequestHead, body: bytes, admit: Admit) -> Reply:
        """A token, or what is wrong with the parameters. Raises `HttpError` 415."""
        require_media_type(head, is_json)
        try:
            members = parse_json_object(body)
            email = optional_text(members, "email")
            if email is None:
                return await self._anonymous(head, members, admit)
            return await self._identified(head, members, email, admit)
        except BadRequest:
            return _refusal(400, "Invalid request parameters")

    async def _anonymous(
        self, head: RequestHead, members: dict[str, object], admit: Admit
    ) -> Reply:
        slug = optional_text(members, "mailboxSlug")
        current = optional_text(members, "currentToken")
        tenants = self._tokens.tenants
        tenant = self._tenant_of(head)
        if tenant is None and slug in tenants:
            tenant = slug
        elif tenant is None and len(tenants) == 1:
            tenant = tenants[0]
        if tenant not in tenants:
            return _refusal(400, "Invalid mailbox")
        await admit(tenant)
        now = self._now()
        identity = self._carried_over(current, tenant, now) or self._new_id()
        return _session(self._tokens.mint(tenant, now=now, anonymous_id=identity))

    async def _identified(
        self,
        head: RequestHead,
        members: dict[str, object],
        email: str,
        admit: Admit,
    ) -> Reply:
        digest = optional_text(members, "emailHash")
        timestamp = _milliseconds(members.get("timestamp"))
        if not is_email(email):
            raise bad_field("email", "is no address")
        if not digest or not timestamp:
            return _refusal(400, "Email authentication fields missing")
        now = self._now()
        if abs(now * 1000 - timestamp) > _SKEW_MS:
            return _refusal(401, "Timestamp is too far in the past")
        tenant = self._tenant_of(head)
        among = self._tokens.tenants if tenant is None else (tenant,)
        if any(name not in self._tokens.tenants for name in among):
            return _refusal(400, "Invalid mailbox")
        signer = None
        if _HASH.fullmatch(digest):
            message = f"{email}:{timestamp}".encode()
            signer = self._tokens.signer(message, bytes.fromhex(digest), among)
        if signer is None:
            return _refusal(401, "Invalid HMAC signature")
        await admit(signer)
        return _session(self._tokens.mint(signer, now=now, email=email))

    def _tenant_of(self, head: RequestHead) -> str | None:
        """The tenant that the request's host belongs to, if it belongs to any."""
        host = _PORT.sub("", head.headers.get("host")).lower().rstrip(".")
        return self._hosts.get(host)

    def _carried_over(self, token: str | None, tenant: str, now: float) -> str | None:
        """The anonymous session that a good token of the same tenant is for."""
        try:
            principal = self._tokens.authenticate(token or "", DIALECT, now=now)
        except (Unauthorized, MailboxNotFound):
            return None
        identity = principal.identity or ""
        if principal.tenant != tenant or not identity.startswith(ANONYMOUS):
            return None
        return identity.removeprefix(ANONYMOUS)


def _session(token: str) -> Reply:
    return json_reply(
        200,
        {
            "valid": True,
            "token": token,
            "supabaseUrl": "",
            "supabaseAnonKey": "",
            "showWidget": True,
            "notifications": [],
            "experimentalReadPage": None,
        },
    )


def _refusal(status: int, text: str) -> Reply:
    if status == 401:
        fields = (("www-authenticate", "Bearer"),)
        reply = json_reply(401, {"valid": False, "error": text}, fields)
        return replace(reply, refused="unauthorized")
    return replace(json_reply(status, {"error": text}), refused="bad_request")


def _milliseconds(value: object) -> int | None:
    """A JSON number as JavaScript would print it in the signed message."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise bad_field("timestamp", "must be a whole number")
    return int(value)
