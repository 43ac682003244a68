from datetime import UTC, datetime, timedelta

import pytest
import yaml

from gateway.settings import credential_count, load_settings
from tests.settings.support import ACME, HASH, OTHER_HASH, SECRET, load, to_file


def test_a_date_is_its_first_moment_in_utc() -> None:
    key = {"hash": HASH, "dialects": ["widget"], "expires": "x"}
    for written in (
        "2030-02-01",
        "2030-02-01T00:00:00Z",
        "'2030-02-01'",
        "2030-02-01T01:00:00+01:00",
    ):
        text = yaml.safe_dump({"tenants": {"a": {"keys": {"k": key}}}}).replace(
            "expires: x", f"expires: {written}"
        )
        assert load(text).tenants["a"].keys["k"].expires == datetime(2030, 2, 1, tzinfo=UTC)


def test_cors_origins_may_be_unset_empty_or_listed() -> None:
    values = {
        "tenants": {
            "a": {},
            "b": {"cors_origins": []},
            "c": {"cors_origins": ["https://Shop.example:8443", "*", "null"]},
        }
    }
    tenants = load(values).tenants
    assert tenants["a"].cors_origins is None
    assert tenants["b"].cors_origins == ()
    assert tenants["c"].cors_origins == ("https://shop.example:8443", "*", "null")


def test_a_key_for_helper_warns_that_it_takes_tokens() -> None:
    values = {"tenants": {"a": {"keys": {"k": {"hash": HASH, "dialects": ["helper"]}}}}}
    (warning,) = load_settings(to_file(values), {}, {}).warnings
    assert "session tokens" in warning


@pytest.mark.parametrize(
    ("days", "words"), [(-1, "has expired"), (0.5, "in 0 days"), (13.5, "in 13 days"), (14.5, "")]
)
def test_a_key_that_has_expired_or_soon_will_is_warned_of(days: float, words: str) -> None:
    until = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    keys = {"k": {"hash": HASH, "dialects": ["widget"], "expires": until}}
    told = load_settings(to_file({"tenants": {"a": {"keys": keys}}}), {}, {}).warnings
    assert [words in text and "tenants.a.keys.k" in text for text in told] == [True] * bool(words)


def test_credentials_are_keys_or_session_secrets() -> None:
    assert not credential_count(load())
    assert not credential_count(load({"tenants": {"a": {}}}))
    assert credential_count(load(ACME))
    secret = {"tenants": {"a": {"dialects": {"helper": {"session_secret": SECRET}}}}}
    assert credential_count(load(secret))


def test_two_keys_with_different_hashes_live_side_by_side() -> None:
    keys = {
        "one": {"hash": HASH, "dialects": ["widget", "hyponema"], "requests_per_minute": 5},
        "two": {"hash": OTHER_HASH, "dialects": ["hyperleap"], "agent": "default"},
    }
    loaded = load({"tenants": {"a": {"keys": keys}}}).tenants["a"].keys
    assert loaded["one"].dialects == ("widget", "hyponema")
    assert loaded["one"].requests_per_minute == 5
    assert loaded["two"].agent == "default"
