"""`gateway token`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.configuration import config_option, fail, load

if TYPE_CHECKING:
    from gateway.settings import TenantSettings


@click.command("token")
@config_option
@click.option("--tenant", required=True, help="The tenant (mailbox) that the token is for.")
@click.option("--email", help="The visitor's address. Default: a new anonymous visitor.")
def command(file: Path | None, tenant: str, email: str | None) -> None:
    """Print a session token for helper's routes."""
    settings = load(file)
    entry = settings.tenants.get(tenant)
    if entry is None:
        known = ", ".join(settings.tenants) or "none"
        fail(f"there is no tenant {tenant!r}; the configuration has: {known}")
    if not entry.dialects.helper.session_secrets:
        fail(
            f"tenant {tenant!r} has no session secret; "
            f"`gateway keys new --tenant {tenant} --dialect helper` makes one"
        )
    click.echo(_minted(tenant, entry, email))


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
        fail(f"--email: {error}")
