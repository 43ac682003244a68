"""`gateway explain`."""

import sys
from pathlib import Path

import click

from gateway.cli.configuration import LABEL_WIDTH, config_option, load


def _address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from ipaddress import ip_address

    try:
        return value and str(ip_address(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an address, e.g. 192.0.2.1") from None


@click.command("explain")
@config_option
@click.option("--key", required=True, help="The key or session token; - asks for it, or reads it.")
@click.option("--route", required=True, metavar='"[METHOD] PATH"', help='As "POST /chat".')
@click.option("--origin", help="The page's origin.")
@click.option("--client", callback=_address, help="The address that the request comes from.")
def command(
    file: Path | None, key: str, route: str, origin: str | None, client: str | None
) -> None:
    """Say who would serve a request, or why nobody would.

    That is the tenant, key, agent, upstreams and limits, as a gateway would decide now.
    """
    from gateway.wiring.explain import explainer

    settings = load(file)
    if key == "-":
        asked = sys.stdin.isatty()
        key = (
            click.prompt("Key", hide_input=True, err=True)
            if asked
            else sys.stdin.readline().strip()
        )
    verdict = explainer(settings).explain(route, key, origin=origin, client=client)
    for label, text in verdict.rows:
        click.echo(f"{label:<{LABEL_WIDTH}} {text}")
    sys.exit(0 if verdict.served else 1)
