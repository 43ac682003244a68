"""`gateway chat`."""

import sys
from pathlib import Path

import click

from gateway.cli.configuration import DIALECT, fail


@click.command("chat")
@click.option("--dialect", type=DIALECT, help="Default: the key's own, else widget.")
@click.option("--url", help="Default: the demo's, else http://127.0.0.1:8080.")
@click.option("--key", help="A key, or for helper a token. Default: the demo's, in var/demo.json.")
@click.option("--raw", is_flag=True, help="Show the answer's bytes as they come.")
@click.option("--once", metavar="TEXT", help="Send one message and exit: 0 if it was answered.")
def command(
    dialect: str | None, url: str | None, key: str | None, raw: bool, once: str | None
) -> None:
    """Talk to a running gateway as one of its clients would.

    Ctrl-C stops a reply, Ctrl-D ends.
    """
    from gateway.chat import Terminal, UsageError, choose

    try:
        target = choose(Path("var/demo.json"), dialect=dialect, url=url, key=key)
    except UsageError as error:
        fail(str(error))
    terminal = Terminal(target, raw=raw)
    sys.exit(terminal.converse() if once is None else terminal.once(once))
