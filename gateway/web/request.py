"""One request on its way through the application: what its log line and its answer need."""

from dataclasses import dataclass, field

from gateway.messages import RequestHead
from gateway.transport.asgi import Exchange
from gateway.turn.tally import TurnTally


@dataclass(slots=True)
class Request:
    """Filled in step by step; what is still None was never reached.

    `template` is the matched route, never the raw path. `refused` is the kind of the error that
    ended the request before a turn began.
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
    quiet: bool = False
    tally: TurnTally | None = None
    began: float = field(default=0.0)
