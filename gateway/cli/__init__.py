"""The command line, one module a command. Exit codes: 0 good, 2 usage or configuration, else 1.

Modules that take long to import are imported by the commands that need them, so that `--help`
and `--version` answer at once.
"""

import click

from gateway import __version__
from gateway.cli import certify, chat, check, config, conversations, explain, keys, serve, token


class _InOrder(click.Group):
    """Lists its commands in the order in which they were added, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway", message="%(prog)s %(version)s")
def main() -> None:
    """Let clients of four chat services talk to any LLM."""


for _module in (serve, keys, token, check, config, explain, chat, conversations, certify):
    main.add_command(_module.command)
