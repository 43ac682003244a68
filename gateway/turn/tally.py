"""What one turn came to: the values behind its metrics record and its log line.

Filled in by the engine while the turn runs, read once when it is over. Times are readings of one
monotonic clock, in seconds, passed in as numbers.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from gateway.errors import ERROR_KINDS, ErrorKind
from gateway.events import FinishReason
from gateway.messages import Price, Usage

_OwnOutcome = Literal["ok", "client_disconnect", "guard_blocked", "worker_lost"]
Outcome = _OwnOutcome | ErrorKind
OUTCOMES: Final[tuple[str, ...]] = (*get_args(_OwnOutcome), *ERROR_KINDS)


@dataclass(slots=True)
class RoundTally:
    """One model call. `error` is the kind that ended it, None if it ended well; `why` its message.

    `target` is the server that was called; `price` what the model's tokens cost, if known.
    """

    upstream: str
    provider: str
    model: str
    began: float
    first_event: float | None = None
    ended: float | None = None
    usage: Usage | None = None
    error: ErrorKind | None = None
    why: str = ""
    target: str = ""
    price: Price | None = None

    @property
    def cost(self) -> float | None:
        """What the call cost; None where the price or the usage is not known."""
        if self.price is None or self.usage is None:
            return None
        usage, price = self.usage, self.price
        tokens = usage.input_tokens * price.input + usage.output_tokens * price.output
        return tokens / 1_000_000


@dataclass(slots=True)
class TurnTally:
    """One admitted chat request, from its last byte to its end.

    `first_generated` is the first text, reasoning or tool delta that came from the model;
    `first_delivered` the moment when the first visible text had been handed to the server;
    `deltas` counts generated deltas, `delivered` those handed to the server, in a one-shot answer
    all at its end; `bytes` the body bytes sent; `why` is the message of the error that ended it.
    `fallbacks` are the upstreams that were given up for the next one. `usage` is the sum over the
    rounds, None if any round had none.
    """

    dialect: str
    http_version: str
    began: float
    outcome: Outcome = "internal"
    why: str = ""
    ended: float | None = None
    first_generated: float | None = None
    first_delivered: float | None = None
    deltas: int = 0
    delivered: int = 0
    bytes: int = 0
    reason: FinishReason | None = None
    rounds: list[RoundTally] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)

    @property
    def usage(self) -> Usage | None:
        """The sum over the rounds; None if there was no round or any had none.

        A call that failed before it answered anything is an attempt, not a round.
        """
        usages = [entry.usage for entry in self._answered()]
        total_in = total_out = 0
        for usage in usages:
            if usage is None:
                return None
            total_in += usage.input_tokens
            total_out += usage.output_tokens
        return Usage(total_in, total_out) if usages else None

    @property
    def cost(self) -> float | None:
        """The sum over the rounds; None if there was no round or any round's is not known."""
        total, rounds = 0.0, self._answered()
        for entry in rounds:
            cost = entry.cost
            if cost is None:
                return None
            total += cost
        return total if rounds else None

    def _answered(self) -> list[RoundTally]:
        return [
            entry for entry in self.rounds if entry.error is None or entry.first_event is not None
        ]
