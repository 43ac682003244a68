"""Where conversations are kept."""

from collections.abc import Sequence
from typing import Protocol

from gateway.messages import (
    NO_TERMS,
    Conversation,
    ConversationKey,
    ConversationPage,
    ConversationStatus,
    Lease,
    Leased,
    Message,
    MessagePage,
    Once,
    Recorded,
    Terms,
)


class ConversationStore(Protocol):
    """Conversations and their messages.

    Every method raises `StoreUnavailable` when the store does not answer in time or refuses.
    A cancelled call has either happened wholly or not at all. A conversation that nobody wrote to
    for the store's retention time is unknown to every method, whether it was swept yet or not.

    A turn is `begin`, then `commit` or `release`, and `renew` while it runs: a lease that nobody
    renews for `lease_s` seconds is free for the next turn, wherever that runs.
    """

    lease_s: float

    async def open(self) -> None:
        """Makes ready; raises `StoreUnavailable` if it cannot be used."""
        ...

    async def close(self) -> None:
        """Writes what is pending and lets go of every resource."""
        ...

    async def load(self, key: ConversationKey, *, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages, oldest first. Raises `NotFound`."""
        ...

    async def create(
        self,
        key: ConversationKey,
        *,
        owner: str | None,
        subject: str | None,
        terms: Terms = NO_TERMS,
    ) -> Conversation:
        """A new conversation. Raises `Conflict` if the key is taken."""
        ...

    async def restore(self, conversation: Conversation) -> None:
        """Adds a whole conversation with its messages as it was, in one step.

        Its `length` is the number of its messages. Raises `Conflict` if the key or the public id
        is taken.
        """
        ...

    async def begin(
        self,
        key: ConversationKey,
        *,
        identity: str | None,
        create: bool,
        messages: int,
        once: Once | None = None,
    ) -> Leased | Recorded:
        """Lock and `load` in one step, or what a request with this `once` was answered before.

        With `create` an unknown conversation is made, owned by `identity`. Raises `NotFound`,
        `NotOwner` (it has another owner), `ConversationBusy` (another lease is alive) and
        `KeyReused` (`once` came with another body, or its reply was too long to be recorded).
        """
        ...

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Lets the leases live for another `lease_s`; one that was lost stays lost."""
        ...

    async def commit(
        self, lease: Lease, messages: Sequence[Message], *, record: bytes | None = None
    ) -> None:
        """Adds the messages in order and ends the lease in one step; again, it does nothing.

        `record` answers later requests with the lease's `once` for ten minutes. Raises `NotFound`
        if the conversation is gone, and `Conflict` if another lease was given meanwhile; nothing
        is stored then.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """The end of the lease without a message; nothing if it is over already."""
        ...

    async def update(
        self,
        key: ConversationKey,
        *,
        subject: str | None = None,
        status: ConversationStatus | None = None,
    ) -> Conversation:
        """The conversation (without messages) after the change; None changes nothing.

        One that has ended keeps its status. Raises `NotFound`.
        """
        ...

    async def mark_read(self, key: ConversationKey, count: int) -> None:
        """Notes that the first `count` messages were read; never takes back. Raises `NotFound`."""
        ...

    async def delete(self, key: ConversationKey) -> None:
        """Forgets the conversation and its messages. Raises `NotFound`."""
        ...

    async def recent(
        self,
        tenant: str,
        dialect: str,
        *,
        owner: str | None,
        limit: int,
        cursor: str | None = None,
        messages: int = 0,
    ) -> ConversationPage:
        """That owner's conversations (None: those without one), last written to first, with the
        newest `messages` messages of each.

        A conversation that nobody writes to meanwhile is on exactly one of the pages. Raises
        `BadRequest` for a cursor that no page had.
        """
        ...

    async def count(
        self, tenant: str, dialect: str, *, owner: str | None, unread: bool = False
    ) -> int:
        """How many conversations `recent` would give in all; with `unread`, of those how many have
        messages that were not read."""
        ...

    async def find(
        self, tenant: str, dialect: str, public_id: str, *, messages: int
    ) -> Conversation:
        """As `load`, by the public id. Raises `NotFound`."""
        ...

    async def history(self, key: ConversationKey, *, limit: int, after: int = 0) -> MessagePage:
        """The messages from the oldest on, `limit` at a time. Raises `NotFound`."""
        ...

    async def scan(self, *, limit: int, cursor: str | None = None) -> ConversationPage:
        """Every conversation of every tenant, without messages and in no promised order.

        One that is there all the time comes at least once. Raises `BadRequest` as `recent` does.
        """
        ...
