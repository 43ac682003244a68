import hashlib
import re

import pytest

from gateway.access.keys import KeyRecord, KeyRing, hash_key, new_key
from gateway.errors import Forbidden, GatewayError, Unauthorized
from gateway.messages import DialectName, Principal

NOW = 1_800_000_000.0
KEY = "cgw_w_0123456789012345678901234567890123456789012"
OTHER = "cgw_hn_abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq"


def ring(**changes: object) -> KeyRing:
    fields: dict[str, object] = {"dialects": frozenset({"widget"}), "expires": None, "agent": None}
    fields.update(changes)
    records = [
        KeyRecord("acme", "site", hash_key(KEY), **fields),  # type: ignore[arg-type]  # a table of fields
        KeyRecord("bolt", "api", hash_key(OTHER), frozenset({"hyponema", "hyperleap"})),
    ]
    return KeyRing(records, {"acme": "support", "bolt": "sales"})


def test_a_good_key_names_its_tenant_itself_and_the_tenants_agent() -> None:
    assert ring().authenticate(KEY, "widget", now=NOW) == Principal("acme", "site", "support")
    assert ring().authenticate(OTHER, "hyperleap", now=NOW) == Principal("bolt", "api", "sales")


def test_a_keys_own_agent_comes_before_the_tenants() -> None:
    assert ring(agent="vip").authenticate(KEY, "widget", now=NOW).agent == "vip"


@pytest.mark.parametrize(
    "credential",
    ["", "x", KEY[:-1], KEY + "0", KEY.upper(), hash_key(KEY), "ключ", "\ud800", "k" * 10_000],
)
def test_whatever_is_no_key_gets_one_answer(credential: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        ring().authenticate(credential, "widget", now=NOW)
    assert str(caught.value) == "no such key"


def test_a_key_works_until_the_moment_it_expires() -> None:
    expiring = ring(expires=NOW)
    assert expiring.authenticate(KEY, "widget", now=NOW - 0.001).tenant == "acme"
    for dialect in ("widget", "hyponema"):
        with pytest.raises(Unauthorized, match="expired"):
            expiring.authenticate(KEY, dialect, now=NOW)


def test_a_good_key_on_another_dialect_is_forbidden() -> None:
    with pytest.raises(Forbidden):
        ring().authenticate(KEY, "hyponema", now=NOW)


def test_neither_key_nor_hash_is_in_a_repr_or_an_error() -> None:
    record = KeyRecord("acme", "site", hash_key(KEY), frozenset({"widget"}))
    assert hash_key(KEY)[7:] not in repr(record)
    for credential, dialect in ((KEY, "hyponema"), (KEY[:-1], "widget")):
        with pytest.raises(GatewayError) as caught:
            ring().authenticate(credential, dialect, now=NOW)
        assert credential not in repr(caught.value)
        assert hash_key(credential)[7:] not in repr(caught.value)


def test_two_records_of_one_key_are_refused_by_name() -> None:
    records = [KeyRecord(tenant, "k", hash_key(KEY), frozenset({"widget"})) for tenant in "ab"]
    with pytest.raises(ValueError, match="keys a/k and b/k are one"):
        KeyRing(records, {"a": "x", "b": "x"})


def test_the_hash_is_sha256_of_the_text() -> None:
    assert hash_key("abc") == "sha256:" + hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    ("dialect", "start"), [("hyponema", "cgw_hn_"), ("hyperleap", "cgw_hl_"), ("widget", "cgw_w_")]
)
def test_a_new_key_says_its_dialect_and_is_random(dialect: DialectName, start: str) -> None:
    made = {new_key(dialect) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(start + r"[A-Za-z0-9_-]{43}", key) for key in made)
