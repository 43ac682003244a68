"""What goes upstream: the system prompt, as much history as fits, and the newest message.

Pure functions. Sizes are estimates of ceil(UTF-8 bytes / 4) tokens; what does not fit is dropped
by whole exchanges (a user message with its reply), the oldest first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.messages import Message, PromptMessage

# Role marks and separators that a chat template puts around each message.
_MESSAGE_OVERHEAD: Final = 6

_BLANK: Final = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")

Exchange = tuple[PromptMessage, ...]


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each `{{name}}` that has a value replaced by it, once: what stands in a
    value is text."""
    return _BLANK.sub(lambda blank: values.get(blank[1], blank[0]), template)


def estimate_tokens(text: str) -> int:
    """ceil(UTF-8 bytes / 4)."""
    return -(-len(text.encode()) // 4)


def exchanges(history: Sequence[Message], *, refusal: str) -> list[Exchange]:
    """History as whole exchanges, oldest first.

    A reply without text stands as the agent's `refusal`: the roles must alternate, and many
    servers refuse an empty message. What comes before the first user message is left out.
    """
    result: list[Exchange] = []
    for message in history:
        if message.role == "user":
            result.append((PromptMessage("user", message.text),))
        elif message.role == "assistant" and result:
            text = message.text.strip() and message.text
            result[-1] = (*result[-1], PromptMessage("assistant", text or refusal))
    return [exchange for exchange in result if len(exchange) > 1]


def fit(
    system: str,
    past: Sequence[Exchange],
    newest: PromptMessage,
    *,
    budget: int | None,
) -> tuple[PromptMessage, ...]:
    """The newest message after as many of the newest exchanges as `budget` tokens hold.

    The newest message is always there, whatever its size: the upstream's own count decides
    whether it fits.
    """
    if budget is None:
        return (*(message for exchange in past for message in exchange), newest)
    room = budget - _cost(PromptMessage("system", system)) - _cost(newest)
    kept: list[Exchange] = []
    for exchange in reversed(past):
        room -= sum(_cost(message) for message in exchange)
        if room < 0:
            break
        kept.append(exchange)
    return (*(message for exchange in reversed(kept) for message in exchange), newest)


def _cost(message: PromptMessage) -> int:
    return estimate_tokens(message.text) + _MESSAGE_OVERHEAD
