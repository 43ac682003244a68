import json
from pathlib import Path

import pytest

from gateway.settings import load_settings
from gateway.web.explain import Explainer, Verdict
from gateway.wiring.explain import explainer
from tests.e2e.config import EMAIL, ORIGIN, config, key_of, tenant, token_of, upstream
from tests.e2e.routes import MAIN, Chat


def values() -> dict[str, object]:
    expired = tenant("expired")
    for key in expired["keys"].values():  # type: ignore[attr-defined]  # a mapping, as made above
        key["expires"] = "2020-01-01T00:00:00Z"
    return config(
        {
            "main": upstream("http://127.0.0.1:9/v1"),
            "spare": {
                **upstream(""),
                "base_url": None,
                "targets": [{"base_url": f"http://127.0.0.1:{port}/v1"} for port in (8, 7)],
            },
        },
        agents={"careful": {"upstreams": ["main", "spare"]}},
        tenants={
            "acme": tenant("acme", requests_per_minute=600, tokens_per_minute=9000),
            "careful": tenant("careful", agent="careful", requests_per_minute_per_client=5),
            "expired": expired,
        },
        server={"trusted_proxies": ["10.0.0.0/8"]},
    )


@pytest.fixture
def asked(tmp_path: Path) -> Explainer:
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(values()))
    return explainer(load_settings(file, {}, {}).settings)


def texts(verdict: Verdict, label: str) -> list[str]:
    return [text for name, text in verdict.rows if name == label]


@pytest.mark.parametrize("chat", MAIN, ids=[chat.dialect for chat in MAIN])
def test_a_good_request_is_served(asked: Explainer, chat: Chat) -> None:
    key = token_of("acme") if chat.dialect == "helper" else key_of("acme", chat.dialect)
    verdict = asked.explain(f"{chat.method} {chat.path}", key, origin=ORIGIN)
    assert verdict.served
    assert texts(verdict, "tenant") == ["acme"]
    assert texts(verdict, "key") == [f"email:{EMAIL}" if chat.dialect == "helper" else chat.dialect]
    assert texts(verdict, "agent") == ["default"]
    assert texts(verdict, "limit") == [
        "600 requests_per_minute of requests:tenant:acme",
        "9000 tokens_per_minute of tokens:tenant:acme",
    ]


def test_the_upstreams_come_in_their_order(asked: Explainer) -> None:
    verdict = asked.explain("/chat", key_of("careful", "widget"))
    assert texts(verdict, "upstream") == [
        "main: openai test-model at http://127.0.0.1:9/v1",
        "spare: openai test-model at http://127.0.0.1:8/v1, http://127.0.0.1:7/v1",
    ]


def test_a_visitor_behind_a_proxy_is_not_the_proxy(asked: Explainer) -> None:
    verdict = asked.explain("/chat", key_of("careful", "widget"), client="203.0.113.5")
    assert texts(verdict, "limit") == [
        "5 requests_per_minute_per_client of requests:tenant:careful:203.0.113.5"
    ]


def test_without_an_address_a_visitors_limit_is_anybodys(asked: Explainer) -> None:
    verdict = asked.explain("POST /chat?from=a-log", key_of("careful", "widget"))
    assert texts(verdict, "limit") == [
        "5 requests_per_minute_per_client of requests:tenant:careful:{visitor}"
    ]


def test_an_endpoint_that_runs_no_turn_has_no_agent(asked: Explainer) -> None:
    verdict = asked.explain("/api/chat/conversations", token_of("acme"))
    assert verdict.served
    assert texts(verdict, "agent") == []


@pytest.mark.parametrize(
    ("route", "key", "origin", "why"),
    [
        ("/chat", "unknown", None, "401 unauthorized: no such key"),
        ("/chat", key_of("acme", "widget"), "https://x.example", "401 forbidden: origin is"),
        ("/sessions/s/messages", key_of("acme", "widget"), None, "403 forbidden: key acme/widget"),
        ("/chat", key_of("expired", "widget"), None, "401 unauthorized: key expired/widget has"),
        ("/chat", "", None, "401 unauthorized: the credential is missing"),
        ("/api/chat", token_of("nobody"), None, "401 unauthorized: no secret"),
        ("GET /chat", key_of("acme", "widget"), None, "405: it takes"),
        ("/nowhere", key_of("acme", "widget"), None, "404: no route"),
    ],
)
def test_a_refusal_says_why(
    asked: Explainer, route: str, key: str, origin: str | None, why: str
) -> None:
    verdict = asked.explain(route, key, origin=origin)
    assert not verdict.served
    assert verdict.rows[-1][0] == "refused"
    assert verdict.rows[-1][1].startswith(why)
    assert key not in str(verdict.rows) or not key
