"""Short ways to load a configuration in the working directory of a test."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from gateway.settings import ConfigError, Problem, Settings, load_settings

HASH = "sha256:" + "a" * 64
OTHER_HASH = "sha256:" + "b" * 64
SECRET = "0123456789abcdef0123456789abcdef"
ACME = {"tenants": {"acme": {"keys": {"site": {"hash": HASH, "dialects": ["widget"]}}}}}


def load(
    values: object = None, environ: Mapping[str, str] | None = None, **flags: object
) -> Settings:
    """The settings of a file (text, or values to write as YAML), variables and flags."""
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings(to_file(values), environ or {}, dotted).settings


def problems(
    values: object = None, environ: Mapping[str, str] | None = None, **flags: object
) -> list[Problem]:
    """What is wrong with them; fails if nothing is."""
    with pytest.raises(ConfigError) as caught:
        load(values, environ, **flags)
    return list(caught.value.problems)


def only_problem(values: object, environ: Mapping[str, str] | None = None) -> Problem:
    """The one thing that is wrong with them."""
    found = problems(values, environ)
    assert len(found) == 1, found
    return found[0]


def to_file(values: object) -> Path | None:
    """A file with the values in the working directory; None for none."""
    if values is None:
        return None
    text = values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False)
    file = Path("gateway.yaml")
    file.write_text(text)
    return file
