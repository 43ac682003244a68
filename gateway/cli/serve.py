"""`gateway serve`."""

import os
from pathlib import Path

import click

from gateway.cli.configuration import chosen, config_option, load


@click.command("serve")
@config_option
@click.option("--bind", multiple=True, metavar="HOST:PORT", help="Instead of server.bind.")
@click.option("--workers", type=click.IntRange(min=1), help="Instead of server.workers.")
@click.option("--demo", is_flag=True, help="Add a tenant with keys and print a curl for each.")
def command(file: Path | None, bind: tuple[str, ...], workers: int | None, demo: bool) -> None:
    """Serve until SIGINT or SIGTERM.

    SIGHUP or a changed file takes on a new configuration.
    """
    overrides: dict[str, object] = {}
    if bind:
        overrides["server.bind"] = bind
    if workers is not None:
        overrides["server.workers"] = workers
    source = chosen(file)
    settings = load(source, overrides)
    from gateway.serving.reload import Source
    from gateway.serving.server import run

    code = run(settings, Source(source, overrides), demo=demo)
    # A thread that hangs in a write to standard output must not keep the process.
    os._exit(code)
