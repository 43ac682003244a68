"""The server's certificate and its private key: whether they can be served with.

PEM files, one certificate with its chain and one unencrypted key; both may be in the same file.
"""

import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_LOCKED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
SOON_S: Final = 14 * 86_400
"""What ends within so many seconds is warned of."""


@dataclass(frozen=True, slots=True)
class PairFault:
    """What is wrong with the pair, and which setting has to change."""

    setting: Literal["certificate", "private_key"]
    text: str


def pair_fault(certificate: Path, private_key: Path) -> PairFault | None:
    """What makes it impossible to serve with the pair; None if nothing does."""
    chain, key = _read(certificate), _read(private_key)
    if isinstance(chain, str):
        return PairFault("certificate", chain)
    if isinstance(key, str):
        return PairFault("private_key", key)
    if _CERTIFICATE not in chain:
        return PairFault("certificate", f"{certificate} holds no certificate in PEM form")
    if any(mark in key for mark in _LOCKED):
        text = f"{private_key} is encrypted; decrypt it with `openssl pkey` and protect the file"
        return PairFault("private_key", text)
    if not _KEY.search(key):
        return PairFault("private_key", f"{private_key} holds no private key in PEM form")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"{private_key} is not the key of {certificate}; give the pair of one request"
            return PairFault("private_key", text)
        text = f"{certificate} with {private_key} cannot be used: {error.reason or 'damaged PEM'}"
        return PairFault("certificate", text)
    return None


def pair_warning(certificate: Path, private_key: Path, *, now: float | None = None) -> str | None:
    """Why clients refuse the certificate, or will within two weeks of `now` (epoch seconds)."""
    try:
        lapses = _lapses(certificate, private_key)
    except ssl.SSLCertVerificationError as error:
        return f"{certificate} will be refused by clients: {error.verify_message}; renew it"
    except OSError:
        return None  # it was good a moment ago; whoever serves with it will say what changed
    left_s = lapses - (time.time() if now is None else now)
    if left_s < SOON_S:
        return f"{certificate} expires in {max(left_s, 0) // 86_400:.0f} days; renew it"
    return None


def authorities_fault(file: Path) -> str | None:
    """Why servers cannot be trusted by the certificates in the file, None if they can."""
    read = _read(file)
    if isinstance(read, str):
        return read
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        return f"{file} holds no certificates in PEM form: {error.reason or 'damaged PEM'}"
    return None


def _read(file: Path) -> bytes | str:
    """The file's bytes, or why there are none."""
    try:
        return file.read_bytes()
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"


def _lapses(certificate: Path, private_key: Path) -> float:
    """When the certificate expires, in epoch seconds.

    A handshake in memory with a client that trusts this very certificate: what that client
    refuses, every client refuses. Raises `ssl.SSLCertVerificationError`.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, private_key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):  # TLS 1.3 takes three turns
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    peer = ends[0].getpeercert() or {}
    return ssl.cert_time_to_seconds(str(peer["notAfter"]))
