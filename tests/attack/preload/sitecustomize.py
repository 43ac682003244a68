"""Python loads this by itself at the start of every process of an attacked site."""

import os

if os.environ.get("ATTACK_PROBES"):
    from tests.attack import hooks

    hooks.install(os.environ["ATTACK_PROBES"])
