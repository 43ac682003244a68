"""`gateway config`."""

from pathlib import Path

import click

from gateway.cli.configuration import config_option, load


@click.command("config")
@config_option
def command(file: Path | None) -> None:
    """Print the configuration in force, with every secret masked."""
    settings = load(file)
    import yaml

    from gateway.settings import masked

    text = yaml.safe_dump(masked(settings), sort_keys=False, allow_unicode=True, width=100)
    click.echo(text, nl=False)
