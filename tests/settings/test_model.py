from datetime import UTC, datetime

import pytest
import yaml
from pydantic import ValidationError

from gateway.settings import (
    Settings,
    load_settings,
)
from tests.settings.support import (
    ACME,
    HASH,
    SECRET,
    load,
    only_problem,
    problems,
    to_file,
)

# Defaults


def test_nothing_at_all_is_a_runnable_configuration() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.upstreams["local"].protocol == "embedded"
    assert settings.agents["default"].upstreams == ("local",)
    assert settings.server.bind == ("127.0.0.1:8080",)
    assert settings.admin.bind == "127.0.0.1:9464"
    assert settings.store.url == "sqlite:var/gateway.db"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "tenants:\nserver:\nprices:\n"])
def test_an_empty_file_and_empty_sections_are_the_defaults(text: str) -> None:
    assert load(text) == Settings()


def test_a_file_with_upstreams_of_its_own_has_no_built_in_one() -> None:
    values = {"upstreams": {"main": {"base_url": "http://x/v1"}}}
    problem = only_problem(values)
    assert problem.key == "agents.default.upstreams"
    assert "'local' is not among upstreams; known upstreams: main" in problem.text
    settings = load({**values, "agents": {"default": {"upstreams": ["main"]}}})
    assert list(settings.upstreams) == ["main"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load().server.workers = 2


# What is refused


def test_an_unknown_key_has_its_line_and_what_was_meant() -> None:
    problem = only_problem("upstreams:\n  local:\n    protocol: embedded\n    conect_s: 3\n")
    assert str(problem) == (
        "gateway.yaml:4: upstreams.local.conect_s: is unknown; did you mean connect_s?"
    )


def test_an_unknown_key_like_no_other_lists_the_known_ones() -> None:
    assert only_problem("admin: {zzz: 1}").text == "is unknown; known settings here: bind"


def test_an_unknown_key_that_belongs_elsewhere_says_where() -> None:
    problem = only_problem("server: {cors_origins: [], workers: 1}")
    assert problem.text.endswith("; elsewhere there is tenants.NAME.cors_origins")


def test_every_fault_is_reported_at_once() -> None:
    text = f"""
servr: {{}}
limits: {{body_s: -1, turns_in_flight: many}}
agents:
  default: {{upstreams: [mian]}}
upstreams:
  main: {{base_url: "ftp://x", api_kye: x}}
tenants:
  Acme: {{}}
  acme:
    agent: nobody
    keys:
      a: {{hash: "{HASH}", dialects: [widgt]}}
      b: {{hash: "{HASH}", dialects: [widget]}}
tools: {{lookup: {{kind: http, url: "https://x"}}}}
"""
    found = {problem.key: problem.text for problem in problems(text)}
    assert set(found) == {
        "servr",
        "limits.body_s",
        "limits.turns_in_flight",
        "agents.default.upstreams",
        "upstreams.main.base_url",
        "upstreams.main.api_kye",
        "tenants.Acme",
        "tenants.acme.agent",
        "tenants.acme.keys.a.dialects.0",
        "tools",
    }


def test_faults_come_in_the_order_of_the_file_and_each_has_its_line() -> None:
    text = "limits:\n  body_s: x\nserver:\n  workrs: 1\nstore:\n  url: nope\n"
    assert [(problem.line, problem.key) for problem in problems(text)] == [
        (2, "limits.body_s"),
        (4, "server.workrs"),
        (6, "store.url"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("server.bind", "127.0.0.1:80", "must be a list"),
        ("server.bind", [], "at least one HOST:PORT"),
        ("server.bind", ["127.0.0.1"], "is not HOST:PORT"),
        ("server.bind", ["127.0.0.1:65536"], "is not HOST:PORT"),
        ("server.bind", [":80"], "is not HOST:PORT"),
        ("server.bind", ["::1:80"], "is not HOST:PORT"),
        ("server.bind", ["127.0.0.1:80", "127.0.0.1:80"], "is given twice"),
        ("server.bind", [8080], "must be text"),
        ("server.allow_no_keys", 1, "must be true or false"),
        ("server.allow_no_keys", "yes", "must be true or false"),
        ("server.workers", True, "must be a whole number"),
        ("server.drain_s", "5", "must be a number"),
        ("server.drain_s", float("inf"), "must be a finite number"),
        ("server.drain_s", True, "must be a number"),
        ("server", "x", "must be a mapping of settings"),
        ("admin.bind", "127.0.0.1:8080", "public listener"),
        ("store.url", "postgres://x", "must be memory:"),
        ("store.url", "sqlite:", "must be memory:"),
        ("store.url", "redis:/h", "must be memory:"),
        *(
            ("store.url", f"sqlite:{rest}", "takes a path, e.g. sqlite:var/gateway.db")
            for rest in ("//var/gateway.db", "///var/gateway.db", ":memory:", "file:gateway.db")
        ),
        ("store.url", "sqlite:~/gateway.db", "takes a path, e.g. sqlite:var/gateway.db"),
        ("store.url", "sqlite:a\0b", "holds a character that no address has"),
        ("server.certificate", "", "must not be empty"),
        ("server.certificate", "a\0b", "holds a character that no path has"),
        ("admin.bind", ["127.0.0.1:1"], "must be text, not a list"),
        *(
            ("store.url", f"valkey://{rest}", "must be SCHEME://")
            for rest in ("", "/0", "h:x", "h:0", "h:70000", "h/x", "h/0?db=1", "h#x", "u:hunter2@")
        ),
        *(
            ("store.url", f"valkey://{rest}", "must be SCHEME://[USER:PASSWORD@]HOST")
            for rest in (":[hunter2]@h", "u:hunter2[@h", "u:hunter2\u2100@h")
        ),
        ("store.retention_days", 1.5, "must be a whole number"),
        ("limits.body_bytes", 0, "must be at least 1"),
        (
            "upstreams.local.protocol",
            "openia",
            "must be one of 'embedded', 'openai' or 'anthropic'",
        ),
        ("upstreams.local.base_url", "http://x/v1", "means nothing for protocol embedded"),
        ("upstreams.local.model", "x", "means nothing for protocol embedded"),
        ("upstreams.local.extra_body", {"since": datetime(2026, 1, 1, tzinfo=UTC)}, "JSON values"),
        ("upstreams.local.max_in_flight", "many", "must be a whole number"),
        ("upstreams.local.targets", [{"base_url": "http://x"}], "means nothing for protocol emb"),
        ("upstreams.local.ca_file", "ca.pem", "means nothing for protocol embedded"),
        ("upstreams.local.max_tokens_field", "tokens", "'max_tokens' or 'max_completion_tokens'"),
        ("prices.m", {"input": -1, "output": 1}, "must be at least 0"),
        ("prices.m", {"input": 1}, "is required"),
        ("agents.default.upstreams", [], "must not be empty"),
        ("agents.default.upstreams", ["local", "local"], "'local' is given twice"),
        ("agents.default.temperature", 2.1, "must be at most 2"),
        ("agents.default.on_disconnect", "drain", "must be one of 'cancel' or 'finish'"),
        ("agents.default.refusal", "", "must not be empty"),
        ("agents.default.system_prompt", 5, "must be text; put it in quotes"),
        ("tenants.acme.agent", "defualt", "did you mean default?"),
        ("tenants.acme.hosts", ["https://x"], "is not a host name"),
        ("tenants.acme.hosts", ["x:80"], "is not a host name"),
        ("tenants.acme.cors_origins", ["https://x/"], "is not an origin"),
        ("tenants.acme.cors_origins", ["x"], "is not an origin"),
        ("tenants.acme.cors_origins", ["https://*.shop.example"], "no pattern"),
        ("tenants.acme.cors_origins", ["https://me@shop.example"], "is not an origin"),
        (
            "tenants.acme.cors_origins",
            ["https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}.de"],
            "xn--",
        ),
        ("tenants.acme.cors_origins", ["https://shop.example:443"], "leave the port out"),
        ("tenants.acme.requests_per_minute", 0, "must be at least 1"),
        ("tenants.acme.keys.site.hash", "sha256:abc", "64 hexadecimal digits"),
        ("tenants.acme.keys.site.hash", None, "must be text"),
        ("tenants.acme.keys.site.dialects", [], "must not be empty"),
        ("tenants.acme.keys.site.dialects", ["smtp"], "'hyponema', 'hyperleap', 'widget' or 'help"),
        ("tenants.acme.keys.site.agent", "vip", "'vip' is not among agents"),
        ("tenants.acme.keys.site.expires", "soon", "must be a date or time"),
        ("tenants.acme.keys.site.expires", "2027-01-01T12:00:00", "needs a time zone"),
        ("tenants.acme.dialects.helper.session_secrets", [SECRET[1:]], "31 bytes, needs at least"),
        ("tenants.acme.dialects.helper.stream_format", "sse", "must be one of 'auto'"),
        ("tenants.acme.dialects.widget.unknown_conversation", "keep", "'create' or 'reject'"),
        ("tenants.acme.dialects.widget.admin_key", "k" * 23, "24 to 512 visible ASCII"),
        ("tenants.acme.dialects.widget.admin_key", "k k" * 9, "24 to 512 visible ASCII"),
        ("tenants.acme.dialects.hyponema.agents", {"agent_1": "vip"}, "'vip' is not among agents"),
        ("tenants.acme.dialects.hyponema.agents", {"": "default"}, "must not be empty"),
        ("tenants.acme.dialects.hyperleap.personas", {"p": "vip"}, "'vip' is not among agents"),
        ("tenants.acme.dialects.smtp", {}, "is unknown"),
    ],
)
def test_a_wrong_value_is_refused_with_the_rule(key: str, value: object, words: str) -> None:
    values: dict[str, object] = yaml.safe_load(yaml.safe_dump(ACME))
    values["upstreams"] = {"local": {"protocol": "embedded"}}
    *parents, last = key.split(".")
    inner: dict[str, object] = values
    for part in parents:
        inner = inner.setdefault(part, {})  # type: ignore[assignment]  # mappings all the way
    inner[last] = value
    problem = only_problem(values)
    assert problem.key.startswith(key)
    assert words in problem.text
    assert problem.line is not None


@pytest.mark.parametrize("name", ["Acme", "1st", "_x", "a-b", "a b", "a" * 33, "é", "a\n"])
@pytest.mark.parametrize("section", ["upstreams", "agents", "tenants"])
def test_a_name_that_labels_could_not_carry_is_refused(section: str, name: str) -> None:
    entry = {"protocol": "embedded"} if section == "upstreams" else {}
    base: dict[str, dict[str, object]] = {
        "upstreams": {"local": {"protocol": "embedded"}},
        "agents": {"default": {}},
        "tenants": {},
    }
    base[section][name] = entry
    assert "[a-z][a-z0-9_]{0,31}" in only_problem(base).text


@pytest.mark.parametrize(
    "bind", ["0.0.0.0:0", "[::1]:8080", "[fe80::1%eth0]:80", "localhost:65535"]
)
def test_addresses_of_every_form_are_accepted(bind: str) -> None:
    assert load({"server": {"bind": [bind]}}).server.bind == (bind,)


def test_a_path_may_have_characters_that_are_not_seen() -> None:
    path = "/srv/\u65b0\u3057\u3044\u3000\u7bb1/a\u00a0b"
    values = {"store": {"url": f"sqlite:{path}"}, "server": {"certificate": path}}
    settings = load(values)
    assert settings.store.url == f"sqlite:{path}"
    assert str(settings.server.certificate) == path


def test_several_listeners_may_each_take_a_free_port() -> None:
    settings = load({"server": {"bind": ["[::1]:0", "[::1]:0"]}, "admin": {"bind": "[::1]:0"}})
    assert len(settings.server.bind) == 2


# Between settings


def test_a_host_belongs_to_one_tenant_in_any_case() -> None:
    values = {"tenants": {"a": {"hosts": ["X.example"]}, "b": {"hosts": ["x.EXAMPLE"]}}}
    problem = only_problem(values)
    assert problem.key == "tenants.b.hosts"
    assert "tenants.a.hosts" in problem.text


@pytest.mark.parametrize("tenants", [("a", "a"), ("a", "b")])
def test_one_hash_cannot_be_two_keys(tenants: tuple[str, str]) -> None:
    values: dict[str, dict[str, dict[str, object]]] = {}
    for number, tenant in enumerate(tenants):
        text = HASH if number else HASH.upper().replace("SHA", "sha")
        keys = values.setdefault(tenant, {"keys": {}})["keys"]
        keys[f"k{number}"] = {"hash": text, "dialects": ["widget"]}
    problem = only_problem({"tenants": values})
    assert problem.key == f"tenants.{tenants[1]}.keys.k1.hash"
    assert HASH not in str(problem)
    assert f"tenants.{tenants[0]}.keys.k0.hash" in problem.text


def test_one_session_secret_cannot_be_two_tenants() -> None:
    entry = {"dialects": {"helper": {"session_secret": SECRET}}}
    problem = only_problem({"tenants": {"a": entry, "b": entry}})
    assert problem.key == "tenants.b.dialects.helper.session_secrets"
    assert SECRET not in str(problem)


def test_a_memory_store_is_for_one_worker() -> None:
    found = problems({"store": {"url": "memory:"}, "server": {"workers": 2}})
    assert [problem.key for problem in found] == ["store.url"]


def test_tls_needs_its_files() -> None:
    keys = [problem.key for problem in problems({"server": {"tls_bind": ["127.0.0.1:443"]}})]
    assert keys == ["server.tls_bind"]


def test_a_faulty_entry_does_not_make_what_names_it_faulty() -> None:
    values = {
        "upstreams": {"main": {"base_url": 5}},
        "agents": {"default": {"upstreams": ["main"]}},
    }
    assert only_problem(values).key == "upstreams.main.base_url"


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "proxy.example", ""])
def test_a_trusted_proxy_is_an_address_or_a_network(text: str) -> None:
    assert "network" in only_problem({"server": {"trusted_proxies": [text]}}).text


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_proxies_that_are_everybody_are_warned_of(text: str) -> None:
    values = {"server": {"trusted_proxies": ["10.0.0.0/8", text]}}
    (warning,) = load_settings(to_file(values), {}, {}).warnings
    assert warning.startswith(f"server.trusted_proxies: {text} is everybody")


# Later releases


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.playground", True),
        ("agents.default.tools", ["lookup"]),
        ("agents.default.tool_rounds", 2),
        ("agents.default.guards", ["no_go"]),
        ("tools.lookup", {"kind": "http", "url": "https://x"}),
        ("guards.no_go", {"kind": "phrases", "phrases": ["x"]}),
    ],
)
def test_a_setting_that_would_do_nothing_yet_is_refused(key: str, value: object) -> None:
    values: dict[str, object] = yaml.safe_load(yaml.safe_dump(ACME))
    *parents, last = key.split(".")
    inner: dict[str, object] = values
    for part in parents:
        inner = inner.setdefault(part, {})  # type: ignore[assignment]  # mappings all the way
    inner[last] = value
    texts = {problem.key: problem.text for problem in problems(values)}
    named = [at for at in texts if key.startswith(at)]
    assert named
    assert any("is not available in this release" in texts[at] for at in named)
