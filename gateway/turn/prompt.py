"""What goes upstream: the system prompt, as much history as fits, and what is to be answered.

Pure functions. Sizes are estimates of ceil(UTF-8 bytes / 4) tokens; what does not fit is dropped
by whole exchanges (a user message with its reply), the oldest first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.messages import KeptCall, Message, PromptMessage

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
    """History as whole exchanges of a user message and what was said to it, oldest first.

    Several replies to one message are told as one, and one without text as the agent's `refusal`:
    the roles must alternate, and many servers refuse an empty message. What comes before the first
    user message is left out.
    """
    told: list[tuple[str, list[str]]] = []
    for message in history:
        if message.role == "user":
            told.append((message.text, []))
        elif message.role == "assistant" and told:
            told[-1][1].append(message.text)
    return [
        (PromptMessage("user", asked), PromptMessage("assistant", _joined(replies) or refusal))
        for asked, replies in told
        if replies
    ]


def gone_on_with(
    history: Sequence[Message], results: Mapping[str, str]
) -> tuple[Exchange, tuple[KeptCall, ...]]:
    """The newest exchange, if its last reply left calls to the client that now brings `results`;
    and those calls. Both are empty otherwise, and if `history` lacks the user message.

    Each reply is told with those of its calls whose results came after it. A reply to the same
    results that was cut short is left out: it is begun anew.
    """
    if history and history[-1].status == "partial" and _known(history[-1], results):
        history = history[:-1]
    answered = tuple(
        call._replace(result=results[call.id])
        for call in (history[-1].calls if history else ())
        if call.result is None and call.id in results
    )
    messages: list[PromptMessage] = []
    came: Sequence[KeptCall] = answered
    for message in reversed(history if answered else ()):
        if message.role == "user":
            return (PromptMessage("user", message.text), *reversed(messages)), answered
        left = {call.id for call in message.calls if call.result is None}
        told = tuple(call for call in came if call.id in left and call.result is not None)
        if message.text.strip() or told:
            messages.append(PromptMessage("assistant", message.text, told))
        came = message.calls
    return (), ()


def fit(
    system: str,
    past: Sequence[Exchange],
    newest: Sequence[PromptMessage],
    *,
    budget: int | None,
) -> Sequence[Exchange]:
    """As many of the newest exchanges as `budget` tokens hold beside what is to be answered.

    The newest messages are always there, whatever their size: the upstream's own count decides
    whether they fit.
    """
    if budget is None:
        return past
    room = budget - _cost(PromptMessage("system", system)) - sum(map(_cost, newest))
    kept = len(past)
    while kept and (room := room - sum(map(_cost, past[kept - 1]))) >= 0:
        kept -= 1
    return past[kept:]


def _known(reply: Message, results: Mapping[str, str]) -> bool:
    return any(call.result is not None and call.id in results for call in reply.calls)


def _joined(replies: Sequence[str]) -> str:
    return "\n\n".join(text for text in replies if text.strip())


def _cost(message: PromptMessage) -> int:
    tokens = estimate_tokens(message.text) + _MESSAGE_OVERHEAD
    for call in message.calls:
        said = (call.name, call.arguments, call.result or "")
        tokens += sum(map(estimate_tokens, said)) + 2 * _MESSAGE_OVERHEAD
    return tokens
