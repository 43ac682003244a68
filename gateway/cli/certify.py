"""`gateway certify`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.configuration import DIALECT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from gateway.certify.recordings import Protocol
    from gateway.wiring import Built


@click.command("certify")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option("--dialect", type=DIALECT, help="Only this one. Default: all.")
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
def command(
    files: tuple[Path, ...],
    dialect: str | None,
    protocol: "Protocol | None",
    sockets: bool | None,
    jobs: int | None,
) -> None:
    """Judge what clients get of answers cut at every byte.

    A FILE is the body of one answer of an OpenAI-compatible or Anthropic server, as
    `curl -sN` prints it: server-sent events, or JSON. Without any the shipped ones are
    used. Every dialect has to end in exactly one terminal record, never in success for a
    truncated stream, with open parts settled and the partial text kept. Of a file over
    8 KiB, neighbouring cuts that are decoded alike share one turn.

    Exit codes: 0 all good, 1 any failure, 2 usage.
    """
    from gateway.certify.command import certify

    if sockets is None:
        sockets = not files
    code = certify(
        files, dialect=dialect, protocol=protocol, sockets=sockets, jobs=jobs, make=_gateway
    )
    sys.exit(code)


def _gateway(values: "Mapping[str, object]") -> "AbstractAsyncContextManager[Built]":
    """A gateway with these settings, given by their dotted paths, and no others."""
    from gateway.settings import load_settings
    from gateway.wiring import build

    return build(load_settings(None, {}, values).settings)
