import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt
import pytest
import yaml
from click.testing import CliRunner, Result

from gateway import __version__
from gateway.access.keys import hash_key
from gateway.cli import main
from gateway.settings import load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
HASH: Final = "sha256:" + "a" * 64
SECRET: Final = "0123456789abcdef0123456789abcdef"
COMMANDS: Final = (
    *("serve", "check", "keys", "token", "chat", "config", "certify", "explain"),
    "conversations",
)
# Found by their import time: what no command may load just to say how it is used.
HEAVY: Final = ("aiohttp", "pydantic", "yaml", "hypercorn", "jwt", "gateway.settings")


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environ, prog_name="gateway")


def write(values: object, name: str = "gateway.yaml") -> str:
    file = Path(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(values))
    return str(file)


def tenants(**changes: object) -> dict[str, object]:
    keys = {"site": {"hash": HASH, "dialects": ["widget"]}}
    helper = {"helper": {"session_secret": SECRET}}
    return {"tenants": {"acme": {"keys": keys, "dialects": helper, **changes}}}


# The whole


def test_the_version_is_told() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"gateway {__version__}\n")


def test_help_lists_the_commands_of_this_release_and_no_other() -> None:
    result = run("--help")
    assert result.exit_code == 0
    listed = re.findall(r"^  (\w+)  ", result.output.split("Commands:")[1], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]
)
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from gateway.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"gateway {__version__}\n")


def test_a_python_without_the_packages_is_told_where_they_are() -> None:
    bare = [sys.executable, "-S", "-m", "gateway"]
    done = subprocess.run(bare, cwd=ROOT, env={}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("gateway: this Python has no package 'click'; `make run` ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown"],
        ["serve", "--nope"],
        ["serve", "--workers", "0"],
        ["keys", "new"],
        ["keys", "new", "--tenant", "acme", "--dialect", "smtp"],
        ["keys", "new", "--tenant", "Acme", "--dialect", "widget"],
        ["keys", "new", "--tenant", "acme", "--dialect", "widget", "--name", "a-b"],
        ["keys", "new", "--tenant", "acme\n", "--dialect", "widget"],
        ["keys", "new", "--tenant", "acme", "--dialect", "helper", "--name", "x"],
        ["token"],
        ["chat", "--url", "nonsense", "--key", "K"],
        ["chat"],
        ["check", "missing.yaml"],
        ["serve", "--config", "missing.yaml"],
        ["serve", "--bind", "nonsense"],
        ["explain", "--key", "K", "--route", "/chat", "--client", "nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_two_and_says_why(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.output


# check


def test_check_takes_its_file_as_the_other_commands_do() -> None:
    file = write(tenants())
    assert run("check", "--config", file).stdout == run("check", file).stdout
    assert run("check", "--config", file, file).exit_code == 2


def test_a_good_file_is_ok_with_a_summary() -> None:
    file = write(
        {
            "upstreams": {"main": {"base_url": "https://x/v1", "api_key": "hunter2", "model": "m"}},
            "agents": {"default": {"upstreams": ["main"]}},
            "store": {"url": "valkey://u:hunter3@store.example"},
            **tenants(),
        }
    )
    result = run("check", file)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "ok: gateway.yaml",
        "  listens    127.0.0.1:8080",
        "  admin      127.0.0.1:9464",
        "  store      valkey://u:**********@store.example",
        "  upstream   main: openai m at https://x/v1",
        "  agent      default: main",
        "  tenant     acme: agent default, 1 key, 1 session secret",
    ]


def test_without_a_file_the_usual_one_is_checked_else_the_defaults() -> None:
    result = run("check")
    assert result.stdout.startswith("ok: built-in defaults\n")
    assert "gateway keys new" in result.stderr
    write(tenants(), "config/gateway.yaml")
    assert run("check").stdout.startswith("ok: config/gateway.yaml\n")


def test_every_fault_of_a_file_is_printed() -> None:
    file = write(
        {"servr": {}, "limits": {"body_s": 0}, "agents": {"default": {"upstreams": ["x"]}}}
    )
    result = run("check", file)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("gateway.yaml:") for line in lines[:3])
    assert lines[3].startswith("3 problems")


def test_warnings_are_printed_apart() -> None:
    result = run("check", write(tenants()), GATEWAY_PORT="tcp://10.0.0.1")
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "GATEWAY_PORT" in result.stderr


def test_variables_count_for_every_command() -> None:
    result = run("check", write(tenants()), GATEWAY_SERVER__BIND='["127.0.0.1:1"]')
    assert "listens    127.0.0.1:1\n" in result.stdout
    assert run("check", write(tenants()), GATEWAY_LIMITS__BODY_S="x").exit_code == 2


# config


def test_the_configuration_in_force_is_printed_masked_and_is_yaml() -> None:
    values = {"upstreams": {"main": {"base_url": "http://x", "api_key": "hunter2"}}}
    agents = {"agents": {"default": {"upstreams": ["main"], "system_prompt": "Grüß Gott"}}}
    file = write({**values, **agents, **tenants()})
    result = run("config", "--config", file, GATEWAY_LIMITS__BODY_S="3")
    assert result.exit_code == 0
    shown = yaml.safe_load(result.stdout)
    assert shown["limits"]["body_s"] == 3
    assert shown["agents"]["default"]["system_prompt"] == "Grüß Gott"
    assert shown["upstreams"]["main"]["api_key"] == "**********"
    for secret in ("hunter2", SECRET, HASH[7:]):
        assert secret not in result.output


def test_the_defaults_as_printed_are_a_configuration() -> None:
    file = Path("printed.yaml")
    file.write_text(run("config").stdout)
    assert load_settings(file, {}, {}).settings == load_settings(None, {}, {}).settings


# keys


@pytest.mark.parametrize("dialect", ["hyponema", "hyperleap", "widget"])
def test_a_new_key_comes_with_the_lines_for_its_hash(dialect: str) -> None:
    result = run("keys", "new", "--tenant", "acme", "--dialect", dialect)
    assert result.exit_code == 0
    (key,) = re.findall(r"^  (cgw_\w+_[A-Za-z0-9_-]{43})$", result.stdout, re.MULTILINE)
    assert result.stdout.count(key) == 1
    Path("new.yaml").write_text(result.stdout.split("file:\n")[1])
    made = load_settings(Path("new.yaml"), {}, {}).settings.tenants["acme"].keys[dialect]
    assert made.hash.get_secret_value() == hash_key(key)
    assert made.dialects == (dialect,)


def test_a_new_key_may_have_a_name() -> None:
    result = run("keys", "new", "--tenant", "acme", "--dialect", "widget", "--name", "shop_2")
    assert "      shop_2:\n" in result.stdout


def test_for_helper_a_session_secret_is_made() -> None:
    result = run("keys", "new", "--tenant", "acme", "--dialect", "helper")
    Path("new.yaml").write_text(result.stdout.split("tokens.\n")[1])
    helper = load_settings(Path("new.yaml"), {}, {}).settings.tenants["acme"].dialects.helper
    assert len(helper.session_secrets[0].get_secret_value()) == 64


def test_keys_are_listed_without_their_hashes() -> None:
    past = datetime.now(UTC) - timedelta(days=2)
    keys = {
        "site": {"hash": HASH, "dialects": ["widget", "hyponema"]},
        "old": {"hash": "sha256:" + "b" * 64, "dialects": ["widget"], "expires": past},
        "new": {"hash": "sha256:" + "c" * 64, "dialects": ["widget"], "expires": "2999-01-01"},
    }
    result = run("keys", "list", "--config", write(tenants(keys=keys)))
    assert result.exit_code == 0
    rows = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert rows[0] == ["TENANT", "KEY", "DIALECTS", "AGENT", "EXPIRES"]
    by_name = {row[1]: row for row in rows[1:]}
    assert by_name["site"] == ["acme", "site", "widget, hyponema", "default", "never"]
    assert by_name["old"][4].endswith("(expired)")
    assert by_name["new"][4] == "2999-01-01 00:00 UTC"
    assert HASH[7:] not in result.stdout


def test_no_keys_to_list_says_how_to_make_one() -> None:
    result = run("keys", "list")
    assert result.exit_code == 0
    assert "gateway keys new" in result.stdout


# token


def test_a_token_is_signed_for_its_tenant_and_visitor() -> None:
    file = write(tenants())
    result = run("token", "--config", file, "--tenant", "acme", "--email", "ada@example.com")
    assert result.exit_code == 0
    claims = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["email"], claims["mailbox"]) == ("ada@example.com", "acme")
    result = run("token", "--config", file, "--tenant", "acme")
    claims = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"])
    assert re.fullmatch(r"[0-9a-f-]{36}", claims["anonymousSessionId"])


@pytest.mark.parametrize(
    ("values", "tenant", "words"),
    [
        (tenants(), "other", "there is no tenant 'other'; the configuration has: acme"),
        ({}, "other", "the configuration has: none"),
        (tenants(dialects={}), "acme", "keys new --tenant acme --dialect helper"),
    ],
)
def test_a_token_needs_a_tenant_with_a_secret(values: object, tenant: str, words: str) -> None:
    result = run("token", "--config", write(values), "--tenant", tenant)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_a_token_is_refused_for_what_is_no_address() -> None:
    result = run("token", "--config", write(tenants()), "--tenant", "acme", "--email", "a b")
    assert result.exit_code == 2
    assert "--email" in result.stderr


# chat


def test_chat_uses_the_demos_file_and_fails_with_one_where_nobody_listens() -> None:
    Path("var").mkdir()
    Path("var/demo.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "widget": "KEY"}))
    result = run("chat", "--once", "hi")
    assert result.exit_code == 1
    assert "no connection to http://127.0.0.1:1" in result.output


def test_chat_without_a_key_is_usage() -> None:
    result = run("chat", "--dialect", "helper")
    assert result.exit_code == 2
    assert "gateway token --tenant T" in result.stderr


def test_chat_ends_well_at_the_end_of_input() -> None:
    result = CliRunner().invoke(main, ["chat", "--key", "K"], input="")
    assert result.exit_code == 0
    assert "widget at http://127.0.0.1:8080" in result.output


def test_explain_says_who_serves_and_exits_with_the_verdict() -> None:
    file = write({"tenants": {"acme": {"keys": {"site": {"hash": HASH, "dialects": ["widget"]}}}}})
    good = run("explain", "--config", file, "--route", "POST /chat", "--key", "no such key")
    assert good.exit_code == 1
    assert "401 unauthorized" in good.output
    asked = run("explain", "--config", file, "--route", "/nowhere", "--key", "x")
    assert (asked.exit_code, "404" in asked.output) == (1, True)


def test_explain_reads_a_key_from_a_pipe_in_silence() -> None:
    keys = {"site": {"hash": hash_key("piped"), "dialects": ["widget"]}}
    file = write({"tenants": {"acme": {"keys": keys}}})
    arguments = ["explain", "--config", file, "--route", "POST /chat", "--key", "-"]
    result = CliRunner().invoke(main, arguments, input="piped\n")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "key        site" in result.stdout
