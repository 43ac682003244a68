import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from gateway.settings import (
    ConfigError,
    Settings,
    load_settings,
    masked,
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

# What YAML is


def test_a_key_given_twice_is_refused_with_both_lines() -> None:
    problem = only_problem("server:\n  workers: 1\nlimits: {}\nserver:\n  drain_s: 1\n")
    assert (problem.file, problem.line, problem.key) == ("gateway.yaml", 4, "server")
    assert "first on line 1" in problem.text


def test_a_nested_key_given_twice_is_refused() -> None:
    problem = only_problem("tenants:\n  acme: {hosts: []}\n  acme: {}\n")
    assert (problem.line, problem.key) == (3, "tenants.acme")


def test_two_keys_of_the_same_name_are_refused_even_if_alike() -> None:
    assert only_problem("limits: {body_s: 5, body_s: 5}").key == "limits.body_s"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\nb: 2\n", 2, "is not valid YAML"),
        ("- a\n- b\n", 1, "must be a mapping of settings"),
        ("just text", 1, "must be a mapping of settings"),
        ("server: {}\n---\nserver: {}\n", 2, "second document"),
        ("server: !python/object:os.system {}\n", 1, "has a YAML tag"),
        ("limits:\n  body_s: !!set {a}\n", 2, "has a YAML tag"),
        ("server: *hunter2\n", 1, "quote a value that begins with *"),
        ("store: {url: !hunter2 x}\n", 1, "quote a value with a leading !"),
        ("a: \x00\n", None, "bad character"),
        ("[" * 50_000, None, "too deeply nested"),
        ("store: {retention_days: 2030-13-45}\n", 1, "looks like a date or number and is none"),
        ("2030-13-45: 1\n", 1, "looks like a date or number and is none"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_without_quoting_it(
    text: str, line: int | None, words: str
) -> None:
    found = problems(text)
    assert words in found[0].text
    assert line is None or found[0].line == line
    assert "hunter2" not in str(found)


def test_a_key_that_yaml_takes_for_something_else_is_refused() -> None:
    found = problems("tenants:\n  no: {}\n  7: {}\n  ? [a]\n  : {}\n")
    assert [(problem.line, problem.key) for problem in found] == [
        (2, "tenants.no"),
        (3, "tenants.7"),
        (4, "tenants"),
    ]
    assert "put it in quotes" in found[0].text


def test_anchors_and_merge_keys_work() -> None:
    text = """
upstreams:
  main: &main {base_url: "http://x/v1", connect_s: 2, idle_s: 7}
  spare: {<<: *main, connect_s: 5}
agents:
  default: {upstreams: [main, spare]}
"""
    spare = load(text).upstreams["spare"]
    assert (spare.connect_s, spare.idle_s) == (5, 7)


def test_aliases_that_grow_without_end_are_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "too large" in only_problem("\n".join(rows)).text
    assert "too deeply nested" in only_problem("server: &a {server: *a}\n").text


def test_json_is_yaml_with_whole_characters() -> None:
    agent = load('{"agents": {"default": {"system_prompt": "\\ud83d\\ude00 hi"}}}').agents[
        "default"
    ]
    assert agent.system_prompt == "\U0001f600 hi"
    assert (
        "half of a character" in problems('{"agents": {"default": {"refusal": "\\ud83d"}}}')[0].text
    )


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff", b"x: " + b"y" * 5_000_000])
def test_a_file_that_cannot_be_read_is_one_problem(content: bytes | None) -> None:
    if content is not None:
        Path("gateway.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(Path("gateway.yaml"), {}, {})
    assert str(caught.value).startswith("gateway.yaml: ")


# Variables and flags


def test_variables_override_the_file_setting_by_setting() -> None:
    values = {"limits": {"body_s": 4, "send_s": 9}, **ACME}
    environ = {
        "GATEWAY_LIMITS__BODY_S": "2.5",
        "GATEWAY_LIMITS__TURNS_IN_FLIGHT": "7",
        "GATEWAY_SERVER__BIND": '["127.0.0.1:1", "127.0.0.1:2"]',
        "GATEWAY_SERVER__ALLOW_NO_KEYS": "true",
        "GATEWAY_AGENTS__DEFAULT__SYSTEM_PROMPT": "5",
        "GATEWAY_AGENTS__DEFAULT__STOP": '["a"]',
        "GATEWAY_TENANTS__ACME__REQUESTS_PER_MINUTE": "60",
        "GATEWAY_TENANTS__ACME__KEYS__SITE__EXPIRES": "2030-01-01",
        "HOME": "/",
    }
    settings = load(values, environ)
    assert (settings.limits.body_s, settings.limits.send_s) == (2.5, 9)
    assert settings.limits.turns_in_flight == 7
    assert settings.server.bind == ("127.0.0.1:1", "127.0.0.1:2")
    assert settings.server.allow_no_keys is True
    assert settings.agents["default"].system_prompt == "5"
    assert settings.agents["default"].stop == ("a",)
    assert settings.tenants["acme"].requests_per_minute == 60
    key = settings.tenants["acme"].keys["site"]
    assert key.expires == datetime(2030, 1, 1, tzinfo=UTC)
    assert key.hash.get_secret_value() == HASH


def test_variables_alone_can_define_an_upstream_and_choose_it() -> None:
    settings = load(
        None,
        {
            "GATEWAY_UPSTREAMS__MAIN__BASE_URL": "http://127.0.0.1:9001/v1",
            "GATEWAY_UPSTREAMS__MAIN__API_KEY": "12345",
            "GATEWAY_UPSTREAMS__MAIN__EXTRA_HEADERS": '{"x-team": "a"}',
            "GATEWAY_AGENTS__DEFAULT__UPSTREAMS": '["main"]',
        },
    )
    main = settings.upstreams["main"]
    assert main.protocol == "openai"
    assert main.api_key is not None
    assert main.api_key.get_secret_value() == "12345"
    assert main.extra_headers["x-team"].get_secret_value() == "a"
    assert settings.agents["default"].upstreams == ("main",)


def test_a_whole_section_as_json_is_refined_by_longer_variables() -> None:
    environ = {
        "GATEWAY_UPSTREAMS__MAIN__CONNECT_S": "1",
        "GATEWAY_UPSTREAMS__MAIN": '{"base_url": "http://x/v1", "connect_s": 9, "idle_s": 8}',
    }
    main = load(None, environ).upstreams["main"]
    assert (main.base_url, main.connect_s, main.idle_s) == ("http://x/v1", 1, 8)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("GATEWAY_LIMITS__BODY_S", "fast", "limits.body_s: must be a number"),
        ("GATEWAY_SERVER__BIND", "127.0.0.1:80", "server.bind: must be JSON"),
        ("GATEWAY_SERVER__BIND", "[1]", "server.bind.0: must be text"),
        ("GATEWAY_LIMITS__BODY_S", "5s", "must be a number of seconds"),
        ("GATEWAY_SERVER__BND", "[]", "server.bnd: is unknown; did you mean bind?"),
        ("GATEWAY_SERVR__BIND", "[]", "servr: is unknown; did you mean server?"),
        ("GATEWAY_SERVER__", "1", "has an empty part"),
        ("GATEWAY_LIMITS__BODY_S__X", "1", "limits.body_s: must be a number"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, words: str) -> None:
    assert f"{name}: " in str(only_problem(None, {name: value}))
    assert words in str(only_problem(None, {name: value}))


def test_a_variable_without_two_underscores_only_warns() -> None:
    result = load_settings(None, {"GATEWAY_PORT": "tcp://x", "GATEWAY_SERVICE_HOST": "y"}, {})
    assert result.settings == Settings()
    assert len(result.warnings) == 1
    assert "GATEWAY_PORT, GATEWAY_SERVICE_HOST" in result.warnings[0]


def test_lower_case_variables_are_not_ours() -> None:
    assert load_settings(None, {"gateway_server__x": "1"}, {}).warnings == ()


def test_an_empty_variable_means_none_where_none_is_allowed() -> None:
    environ = {"GATEWAY_UPSTREAMS__M__API_KEY": "", "GATEWAY_UPSTREAMS__M__BASE_URL": "http://x"}
    assert load(None, environ).upstreams["m"].api_key is None


def test_flags_override_variables() -> None:
    environ = {"GATEWAY_SERVER__BIND": '["127.0.0.1:1"]', "GATEWAY_SERVER__DRAIN_S": "1"}
    settings = load(None, environ, server__bind=["127.0.0.1:2"])
    assert settings.server.bind == ("127.0.0.1:2",)
    assert settings.server.drain_s == 1
    assert problems(None, {}, server__bind=["x"])[0].file == "command line"


# Secrets


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_may_be_in_a_file(ending: str) -> None:
    _write("key", f" a b {ending}")
    values = {"upstreams": {"local": {"base_url": "https://x", "api_key_file": "key"}}}
    key = load(values).upstreams["local"].api_key
    assert key is not None
    assert key.get_secret_value() == " a b "


def test_every_kind_of_secret_may_be_in_a_file() -> None:
    _write("hash", HASH + "\n")
    _write("secret", SECRET + "\n")
    _write("secrets", f"{SECRET}{SECRET}\n\n{SECRET}1\r\n")
    _write("admin", SECRET + "\n")
    _write("url", "valkey://u:hunter2@store.example\n")
    values = {
        "store": {"url_file": "url"},
        "tenants": {
            "a": {
                "keys": {"k": {"hash_file": "hash", "dialects": ["widget"]}},
                "dialects": {"helper": {"session_secret_file": "secret"}},
            },
            "b": {
                "dialects": {
                    "helper": {"session_secrets_file": "secrets"},
                    "widget": {"admin_key_file": "admin"},
                }
            },
        },
    }
    settings = load(values)
    assert settings.store.url == "valkey://u:hunter2@store.example"
    tenants = settings.tenants
    assert tenants["a"].keys["k"].hash.get_secret_value() == HASH
    assert [s.get_secret_value() for s in tenants["a"].dialects.helper.session_secrets] == [SECRET]
    assert [s.get_secret_value() for s in tenants["b"].dialects.helper.session_secrets] == [
        SECRET + SECRET,
        SECRET + "1",
    ]
    admin_key = tenants["b"].dialects.widget.admin_key
    assert admin_key is not None
    assert admin_key.get_secret_value() == SECRET


def test_a_single_session_secret_is_a_list_of_one() -> None:
    values = {"tenants": {"a": {"dialects": {"helper": {"session_secret": SECRET}}}}}
    secrets = load(values).tenants["a"].dialects.helper.session_secrets
    assert [secret.get_secret_value() for secret in secrets] == [SECRET]


def test_a_file_that_everybody_can_read_is_warned_about() -> None:
    local = {"base_url": "https://x", "model": "m", "api_key_file": "key"}
    values = {"upstreams": {"local": local}}
    _write("key", "hunter2", mode=0o604)
    (warning,) = load_settings(to_file(values), {}, {}).warnings
    assert warning.startswith("upstreams.local.api_key_file: every user")
    assert "hunter2" not in warning
    _write("key", "hunter2", mode=0o640)
    assert load_settings(to_file(values), {}, {}).warnings == ()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"x" * 70_000])
def test_a_secret_file_that_holds_no_secret_is_a_problem(content: bytes | None) -> None:
    if content is not None:
        Path("key").write_bytes(content)
    values = "upstreams:\n  local:\n    base_url: http://x\n    api_key_file: key\n"
    problem = only_problem(values)
    assert (problem.line, problem.key) == (4, "upstreams.local.api_key_file")
    assert "'key'" in problem.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("session_secret", "session_secrets"),
        ("session_secret", "session_secret_file"),
        ("session_secrets_file", "session_secrets"),
    ],
)
def test_one_place_gives_a_secret_one_way(one: str, other: str) -> None:
    _write("f", SECRET)
    forms = {
        "session_secret": SECRET,
        "session_secrets": [SECRET],
        "session_secret_file": "f",
        "session_secrets_file": "f",
    }
    helper = {name: forms[name] for name in (one, other)}
    problem = only_problem({"tenants": {"a": {"dialects": {"helper": helper}}}})
    assert "is given as well" in problem.text


def test_a_later_place_wins_however_it_gives_the_secret() -> None:
    _write("key", "from-file")
    values = {"upstreams": {"local": {"base_url": "http://x", "api_key": "from-yaml"}}}
    key = load(values, {"GATEWAY_UPSTREAMS__LOCAL__API_KEY_FILE": "key"}).upstreams["local"].api_key
    assert key is not None
    assert key.get_secret_value() == "from-file"
    values = {"upstreams": {"local": {"base_url": "https://x", "api_key_file": "key"}}}
    key = load(values, {"GATEWAY_UPSTREAMS__LOCAL__API_KEY": "from-env"}).upstreams["local"].api_key
    assert key is not None
    assert key.get_secret_value() == "from-env"


def test_a_wrong_secret_from_a_variable_is_placed_and_not_shown() -> None:
    environ = {"GATEWAY_TENANTS__A__DIALECTS__HELPER__SESSION_SECRET": "hunter2"}
    problem = only_problem(None, environ)
    assert problem.file == "GATEWAY_TENANTS__A__DIALECTS__HELPER__SESSION_SECRET"
    assert "hunter2" not in str(problem)


def test_what_a_variable_leaves_out_is_placed_at_the_variable_and_not_at_the_file() -> None:
    environ = {"GATEWAY_TENANTS__A__KEYS__K__HASH": HASH}
    problem = only_problem("tenants: {b: {}}", environ)
    assert problem.file == "GATEWAY_TENANTS__A__KEYS__K__HASH"
    assert problem.key == "tenants.a.keys.k.dialects"


def test_no_secret_is_in_a_repr_or_in_what_is_shown() -> None:
    values = {
        "upstreams": {
            "local": {
                "base_url": "http://x",
                "api_key": "hunter2-api",
                "extra_headers": {"authorization": "hunter2-header"},
            }
        },
        "tenants": {
            "acme": {
                "keys": {"site": {"hash": HASH, "dialects": ["widget"]}},
                "dialects": {"helper": {"session_secret": "hunter2" + SECRET}},
            }
        },
    }
    settings = load(values)
    shown = yaml.safe_dump(masked(settings))
    for text in (repr(settings), str(settings), shown):
        assert "hunter2" not in text
        assert HASH[7:] not in text
        assert "**********" in text
    assert "base_url: http://x" in shown


def test_a_password_in_the_stores_address_is_not_shown() -> None:
    settings = Settings.model_validate({"store": {"url": "redis://user:hunter2@h/0"}})
    assert masked(settings)["store"] == {
        "url": "redis://user:**********@h/0",
        "retention_days": 90,
    }


def _write(name: str, text: str, mode: int = 0o600) -> None:
    file = Path(name)
    file.write_bytes(text.encode())
    file.chmod(mode)
    assert stat.S_IMODE(file.stat().st_mode) == mode
