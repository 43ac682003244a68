"""Puts the gateway's own protocol classes in the place of Hypercorn's.

Hypercorn looks its two protocol classes up in one module, by name. They are replaced there once
per process, and only in the versions of Hypercorn, h11, h2 and hpack that were tested with.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Final

from hypercorn import protocol

from gateway.serving.http1 import Http1Protocol
from gateway.serving.http2 import Http2Protocol

_TESTED: Final[Mapping[str, str]] = {
    "hypercorn": "0.18.0",
    "h11": "0.16.",
    "h2": "4.4.",
    "hpack": "4.2.",
}
_CLASSES: Final[Mapping[str, type]] = {
    "H11Protocol": Http1Protocol,
    "H2Protocol": Http2Protocol,
}


class UntestedVersion(Exception):
    """A package whose insides are replaced has a version that nobody tried; the message says so."""


def install(installed: Callable[[str], str] = version) -> None:
    """From now on every connection that Hypercorn opens speaks through the gateway's classes.

    More than once does no harm. `installed` gives a package's version. Raises `UntestedVersion`.
    """
    for package, tested in _TESTED.items():
        found = installed(package)
        if not found.startswith(tested):
            wanted = tested + "x" if tested.endswith(".") else tested
            raise UntestedVersion(
                f"{package} {found} is installed, but the gateway was tested with {wanted} and "
                f"replaces parts of it; install {package} {wanted}"
            )
    for name, replacement in _CLASSES.items():
        setattr(protocol, name, replacement)
