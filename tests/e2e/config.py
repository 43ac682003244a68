"""Configurations for the tests: tenants with a key per dialect, all of one upstream's text.

Keys and secrets are made from the tenant's name here, and their hashes by hand, so that a mistake
in the gateway's own hashing cannot hide.
"""

import hashlib
import time
from collections.abc import Mapping
from typing import Final

import jwt

from tests.e2e.canaries import CANARY, plant_token

DIALECTS: Final = ("hyponema", "hyperleap", "widget", "helper")
ORIGIN: Final = "https://shop.example"
EMAIL: Final = "ada@example.com"


def key_of(tenant: str, dialect: str) -> str:
    """The key with which clients of that dialect come."""
    digest = hashlib.sha256(f"{tenant}/{dialect}".encode()).hexdigest()
    return f"{tenant}-{dialect}-{CANARY}-{digest[:43]}"


def admin_key_of(tenant: str) -> str:
    """The key with which the operators of its widget come."""
    return key_of(tenant, "admin")


def secret_of(tenant: str) -> str:
    """The secret that a helper mailbox signs its sessions with."""
    return f"{tenant}-session-secret-{CANARY}-{hashlib.sha256(tenant.encode()).hexdigest()[:32]}"


def token_of(
    tenant: str,
    email: str = EMAIL,
    *,
    secret: str | None = None,
    claims: Mapping[str, object] | None = None,
) -> str:
    """A helper session token, as RFC 7519 says; a claim of None is left out."""
    now = int(time.time())
    usual = {"email": email, "iat": now, "exp": now + 3600, "mailbox": tenant}
    both = {**usual, **(claims or {})}
    payload = {name: value for name, value in both.items() if value is not None}
    return plant_token(jwt.encode(payload, secret or secret_of(tenant), algorithm="HS256"))


def upstream(base_url: str, **settings: object) -> dict[str, object]:
    """An upstream section that gives up within a few seconds."""
    clocks = {"connect_s": 1, "first_token_s": 5, "idle_s": 5, "total_s": 20}
    named = {"protocol": "openai", "base_url": base_url, "model": "test-model"}
    return {**named, **clocks, **settings}


def tenant(
    name: str,
    agent: str = "default",
    dialects: Mapping[str, object] | None = None,
    **settings: object,
) -> dict[str, object]:
    """A tenant section with one key per dialect and a helper mailbox.

    `dialects` and `settings` go over it; a setting of None takes its place in the section away.
    """
    keys = {
        dialect: {
            "hash": "sha256:" + hashlib.sha256(key_of(name, dialect).encode()).hexdigest(),
            "dialects": [dialect],
        }
        for dialect in DIALECTS
        if dialect != "helper"
    }
    section: dict[str, object] = {
        "agent": agent,
        "cors_origins": [ORIGIN],
        "keys": keys,
        "dialects": {"helper": {"session_secrets": [secret_of(name)]}, **(dialects or {})},
    }
    both = {**section, **settings}
    return {name: value for name, value in both.items() if value is not None}


def config(
    upstreams: Mapping[str, object],
    *,
    agents: Mapping[str, object] | None = None,
    tenants: Mapping[str, object] | None = None,
    store: str = "memory:",
    **sections: Mapping[str, object],
) -> dict[str, object]:
    """A whole configuration on ports of the system's choosing; stops without waiting."""
    first = next(iter(upstreams))
    server = {"bind": ["127.0.0.1:0"], "drain_notice_s": 0, "drain_s": 3}
    return {
        "server": {**server, **sections.pop("server", {})},
        "admin": {"bind": "127.0.0.1:0"},
        "store": {"url": store},
        "upstreams": dict(upstreams),
        "agents": {"default": {"upstreams": [first]}, **(agents or {})},
        "tenants": dict(tenants or {"acme": tenant("acme")}),
        **sections,
    }
