"""Finds a request's credential in the headers that its route names, and nowhere else.

Nothing wins over anything: the same header twice, or two named headers that differ, is a bad
request, because a proxy in front may have judged the other one. `Authorization` is RFC 9110
section 11.4 with the scheme `Bearer` (any case) and one token.
"""

import re
from typing import Final

from gateway.errors import BadRequest, Unauthorized
from gateway.messages import RequestHead
from gateway.ports.routes import CredentialSource

# Visible ASCII. Longer than any key or token can be.
_CREDENTIAL: Final = re.compile(r"[!-~]{1,8192}")
_BEARER: Final = re.compile(r"bearer +", re.IGNORECASE | re.ASCII)


def extract(head: RequestHead, sources: tuple[CredentialSource, ...]) -> str:
    """The credential's text, 1 to 8192 visible ASCII characters.

    Raises `BadRequest` for contradictory headers, `Unauthorized` for none or a malformed one.
    """
    found: set[str] = set()
    for source in sources:
        values = head.headers.all(source.header)
        if len(values) > 1:
            raise BadRequest(f"header {source.header} is given {len(values)} times")
        found.update(_text(value, source) for value in values)
    if len(found) > 1:
        raise BadRequest("two credential headers differ")
    credential = found.pop() if found else ""
    if not _CREDENTIAL.fullmatch(credential):
        raise Unauthorized("the credential is missing or malformed")
    return credential


def _text(value: str, source: CredentialSource) -> str:
    value = value.strip(" \t")
    if not source.bearer:
        return value
    scheme = _BEARER.match(value)
    return value[scheme.end() :] if scheme else ""
