"""What the commands share: the configuration that they are given, and how they refuse it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, get_args

import click

from gateway.messages import DialectName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.settings import Settings

_DEFAULT_FILE: Final = Path("config/gateway.yaml")

LABEL_WIDTH: Final = 10
DIALECT: Final = click.Choice(get_args(DialectName))

config_option: Final = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help=f"Configuration file. Default: {_DEFAULT_FILE}, else built-in defaults.",
)


def chosen(file: Path | None) -> Path | None:
    """The file that counts: the one given, else the usual one, else none."""
    return file if file is not None or not _DEFAULT_FILE.exists() else _DEFAULT_FILE


def load(file: Path | None, overrides: "Mapping[str, object] | None" = None) -> "Settings":
    """The settings of the file that counts, and of flags by their dotted paths; or the end."""
    from gateway.settings import ConfigError, load_settings

    try:
        result = load_settings(chosen(file), os.environ, overrides or {})
    except ConfigError as error:
        count = len(error.problems)
        fail(f"{error}\n{count} problem{'s' if count > 1 else ''}")
    for text in result.warnings:
        warn(text)
    return result.settings


def warn(text: str) -> None:
    """Says what may be meant otherwise."""
    click.echo(f"warning: {text}", err=True)


def fail(text: str) -> NoReturn:
    """Says what is wrong with the usage or the configuration, and ends."""
    click.echo(text, err=True)
    sys.exit(2)
