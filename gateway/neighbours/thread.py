"""The newest part of what was said, small enough for one answer.

Visitors decide how much they write, so the answer is bounded by characters as well as by messages,
and read from the store in parts.
"""

from typing import Final

from gateway.messages import Conversation, Message
from gateway.ports.conversations import ConversationStore

MESSAGES: Final = 1000
CHARACTERS: Final = 1_048_576
_TOGETHER: Final = 50


async def newest(
    store: ConversationStore,
    conversation: Conversation,
    *,
    messages: int = MESSAGES,
    characters: int = CHARACTERS,
) -> tuple[Message, ...]:
    """The newest messages, oldest first: no more than that many, and of the older ones no more
    than fit; the very newest is always there. Raises `NotFound` if it was deleted meanwhile."""
    found: list[Message] = []
    oldest = max(conversation.length - messages, 0)
    end, room = conversation.length, characters
    while end > oldest:
        begin = max(end - _TOGETHER, oldest)
        page = await store.history(conversation.key, after=begin, limit=end - begin)
        for message in reversed(page.messages):
            room -= len(message.text)
            if room < 0 and found:
                return tuple(reversed(found))
            found.append(message)
        end = begin
    return tuple(reversed(found))
