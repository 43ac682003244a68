"""`gateway keys`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.configuration import DIALECT, config_option, load

if TYPE_CHECKING:
    from gateway.messages import DialectName
    from gateway.settings import TenantSettings


@click.group("keys")
def command() -> None:
    """Make and list keys."""


@command.command("new")
@click.option("--tenant", required=True, help="The tenant that the key is for.")
@click.option("--dialect", required=True, type=DIALECT, help="The clients that will have it.")
@click.option("--name", help="The key's name. Default: the dialect.")
def _new(tenant: str, dialect: "DialectName", name: str | None) -> None:
    """Make a key and the lines for the configuration.

    For helper it is a session secret, from which tokens are made.
    """
    _refuse_bad_name("--tenant", tenant)
    if dialect == "helper":
        if name is not None:
            raise click.UsageError("helper has session secrets, which have no --name")
        _new_session_secret(tenant)
        return
    name = name or dialect
    _refuse_bad_name("--name", name)
    from gateway.access.keys import hash_key, new_key

    key = new_key(dialect)
    click.echo("The key. It is shown this once; what is kept is its hash.\n")
    click.echo(f"  {key}\n")
    click.echo("For the configuration file:\n")
    click.echo(
        f"tenants:\n  {tenant}:\n    keys:\n      {name}:\n"
        f'        hash: "{hash_key(key)}"\n        dialects: [{dialect}]'
    )


def _new_session_secret(tenant: str) -> None:
    import secrets

    click.echo("For the configuration file. Whoever has the secret can make tokens.\n")
    click.echo(
        f"tenants:\n  {tenant}:\n    dialects:\n      helper:\n"
        f'        session_secret: "{secrets.token_urlsafe(48)}"'
    )


def _refuse_bad_name(option: str, value: str) -> None:
    import re

    from gateway.settings.values import NAME_PATTERN

    pattern = NAME_PATTERN.strip("^$")
    if not re.fullmatch(pattern, value):
        text = f"{value!r} is not a name; names match {pattern}"
        raise click.BadParameter(text, param_hint=option)


@command.command("list")
@config_option
def _list(file: Path | None) -> None:
    """List the keys of the configuration: whose, for what, until when."""
    settings = load(file)
    rows = [row for name, tenant in settings.tenants.items() for row in _rows(name, tenant)]
    if not rows:
        click.echo("no keys; make one with `gateway keys new --tenant T --dialect D`")
        return
    table = [("TENANT", "KEY", "DIALECTS", "AGENT", "EXPIRES"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _rows(name: str, tenant: "TenantSettings") -> list[tuple[str, str, str, str, str]]:
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
