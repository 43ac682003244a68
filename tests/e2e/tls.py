"""The certificate that gateways under test serve with, and clients that trust it."""

import ssl
from pathlib import Path
from typing import Final

# For localhost and 127.0.0.1, its own issuer, good until 2126; with its key.
CERTIFICATE: Final = Path(__file__).parents[1] / "transport" / "self_signed.pem"


def server_settings() -> dict[str, object]:
    """What a `server` section needs for a TLS listener on a port of the system's choosing."""
    pair = str(CERTIFICATE)
    return {"tls_bind": ["127.0.0.1:0"], "certificate": pair, "private_key": pair}


def client_context(*alpn: str) -> ssl.SSLContext:
    """A client's context that trusts that certificate alone, offering these protocols."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
