"""TLS of the public listener: versions 1.2 and 1.3, HTTP/2 or HTTP/1.1 by ALPN.

The certificate is read when a context is made: a worker that starts has the newest.
"""

import ssl
from pathlib import Path
from typing import Final

PROTOCOLS: Final = ("h2", "http/1.1")


class CertificateError(Exception):
    """The certificate or its key cannot be served with; the message says which and why."""


def server_context(certificate: Path | None, private_key: Path | None) -> ssl.SSLContext:
    """A context to serve with. Raises `CertificateError`.

    Ciphers are Python's own choice; compression and renegotiation are off (RFC 9113 section 9.2.1).
    """
    if certificate is None or private_key is None:
        raise CertificateError("server.tls_bind needs server.certificate and server.private_key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(list(PROTOCOLS))
    try:
        # A key that is encrypted must not ask for its password on the terminal.
        context.load_cert_chain(certificate, private_key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise CertificateError(
            f"cannot serve with {certificate} and {private_key}: {reason}; see `gateway check`"
        ) from error
    return context
