"""Whose a conversation is, where callers have an identity of their own beside the tenant's."""

from gateway.errors import NotOwner
from gateway.messages import Conversation, Principal


def check_owner(conversation: Conversation, principal: Principal) -> None:
    """Raises `NotOwner` for the conversation of another identity, or of none."""
    if conversation.owner != principal.identity:
        raise NotOwner("the token's identity does not own the conversation")
