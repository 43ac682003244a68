"""What a turn is to do: the assistant, the history, and the bounds of the reply."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.messages import PromptMessage
from gateway.ports.turns import Model
from gateway.turn.prompt import Exchange


@dataclass(frozen=True, slots=True)
class Agent:
    """A configured assistant; `models` are tried in order."""

    name: str
    models: tuple[Model, ...]
    system_prompt: str
    history_messages: int
    max_tokens: int | None
    temperature: float | None
    stop: tuple[str, ...]
    turn_s: float
    finish_when_gone: bool
    refusal: str


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """What a turn is to do.

    `newest` is what is answered: a message, or the exchange that tool results go on with.
    `headers` go to the upstream; `output_bytes` caps what is generated; no failed
    model call is followed by another later than `retry_within_s` after the turn's beginning.
    """

    agent: Agent
    past: Sequence[Exchange]
    newest: Sequence[PromptMessage]
    headers: tuple[tuple[str, str], ...]
    output_bytes: int
    retry_within_s: float = 10.0
