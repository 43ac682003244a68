"""One request on its way through the application: what its log line and its answer need."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.messages import RequestHead
from gateway.transport.asgi import Exchange
from gateway.turn.tally import TurnTally

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(slots=True)
class Request:
    """Filled in step by step; what is still None was never reached.

    `template` is the matched route, never the raw path. `refused` is the kind of the error that
    ended the request before a turn began; `why` what the store said, if that was the reason, or
    that the answer was not taken.
    """

    exchange: Exchange
    head: RequestHead
    request_id: str
    trace_id: str
    dialect: str | None = None
    template: str | None = None
    tenant: str | None = None
    key: str | None = None
    refused: str | None = None
    why: str | None = None
    quiet: bool = False
    tally: TurnTally | None = None
    began: float = 0.0


def request_id(head: RequestHead, new_id: Callable[[], str]) -> str:
    """The id that the client gave the request, if it is a safe one, else a new one."""
    given = head.headers.get("x-request-id")
    return given if _REQUEST_ID.fullmatch(given) else new_id()
