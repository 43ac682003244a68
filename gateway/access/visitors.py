"""The address of the visitor behind a request, where proxies stand in front of the gateway.

A peer outside `trusted_proxies` is the visitor, whatever it writes into its headers. Behind a
trusted one the visitor is the last address of `X-Forwarded-For` that is not a trusted proxy's:
each proxy appends the peer that it saw, so everything to the left of that was written by the
visitor. An IPv6 visitor counts as its /64, which is what one household gets.
"""

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from gateway.messages import RequestHead

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_FORWARDED: Final = "x-forwarded-for"
_HOPS: Final = 32
_HOUSEHOLD_BITS: Final = 64


class Visitors:
    """Tells the visitor's address; `trusted` are the networks of the proxies in front."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._trusted: Sequence[Network] = tuple(ip_network(text) for text in trusted)

    def address(self, peer: str | None, head: RequestHead) -> str | None:
        """The visitor's address in its usual spelling; None where the peer has none.

        A trusted proxy that names nobody, or writes what is no address, is itself the visitor.
        """
        current = _parsed(peer or "")
        if current is None:
            return None
        hops = ",".join(head.headers.all(_FORWARDED)).split(",")[-_HOPS:]
        while hops and self._is_trusted(current):
            before = _parsed(hops.pop())
            if before is None:
                break
            current = before
        return _spelling(current)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _parsed(text: str) -> Address | None:
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # IPv4 with a port, as some proxies write it
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _spelling(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address), _HOUSEHOLD_BITS), strict=False))
