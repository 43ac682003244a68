"""What the failures of aiohttp, of sockets and of the resolver mean, in one place.

The texts of these errors hold addresses, and some their request's headers: only the type is told,
and the system's name for the fault.
"""

import errno
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import (
    ConnectTimeout,
    GatewayError,
    Overloaded,
    TotalTimeout,
    Truncated,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamUnavailable,
)

# `TimeoutError` is an `OSError`; `ValueError` is what a malformed address or header raises.
CLIENT_ERRORS: Final = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)
# What this process or machine has run out of, whatever the server is like.
_OWN_WANT: Final = ("EMFILE", "ENFILE")


def failure(error: Exception, *, answering: bool) -> GatewayError:
    """What a client error means; `answering` says that the head of a good answer had come."""
    named = type(error).__name__
    code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    if code is not None:
        named += f" {code}"
    if code in _OWN_WANT:
        return Overloaded(f"no descriptor is left for a call: {named}", retry_after=1)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ConnectTimeout(f"no connection in time: {named}")
    if isinstance(error, TimeoutError):
        return TotalTimeout(f"no answer in time: {named}")
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return UpstreamProtocolError(f"the answer is malformed: {named}")
    if answering:
        return Truncated(f"the connection broke: {named}")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return UpstreamUnavailable(f"the upstream cannot be reached: {named}")
    return UpstreamError(f"the call cannot be made: {named}")
