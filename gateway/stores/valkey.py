"""Conversations on a Valkey or Redis server, shared by the workers of any number of machines.

Every step is one script (`valkey_scripts.py`); what a caller may rely on about time and failure
is in `valkey_server.py`. What was acknowledged is as durable as the server makes it: with
asynchronous replication or without an append-only file, a failover or crash may lose the newest
turns, each of them whole. The server lets conversations expire; what has expired by this
process's clock is not there even before that.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from gateway.errors import (
    Conflict,
    ConversationBusy,
    GatewayError,
    KeyReused,
    NotFound,
    NotOwner,
    StoreUnavailable,
)
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
from gateway.stores import valkey_scripts as scripts
from gateway.stores.forms import decode_cursor, encode_cursor, encode_terms
from gateway.stores.leasing import (
    LEASE_S,
    RECORD_BYTES,
    RECORD_S,
    RECORDS_PER_TENANT,
    first_token,
    new_nonce,
)
from gateway.stores.public_id import new_public_id
from gateway.stores.valkey_forms import (
    base_of,
    decode_conversation,
    decode_message,
    encode_message,
    lease_text,
    optional,
    owner_tag,
    place_of,
    record_key,
    stamp_of,
)
from gateway.stores.valkey_server import Answer, Argument, Script, ValkeyServer

# The form of the data below. A release that changes it knows how to bring older data along.
VERSION: Final = 1

_DAY_S: Final = 86_400
_RENEWED_TOGETHER: Final = 100
_REFUSALS: Final[dict[bytes, tuple[type[GatewayError], str]]] = {
    b"missing": (NotFound, "unknown conversation"),
    b"taken": (Conflict, "the conversation exists"),
    b"stranger": (NotOwner, "the conversation has another owner"),
    b"busy": (ConversationBusy, "a turn is running on this conversation"),
    b"reused": (KeyReused, "the key came with another request before"),
    b"unrecorded": (KeyReused, "the first reply was too long to be recorded"),
    b"stale": (Conflict, "another turn has taken the conversation over"),
}


class ValkeyStore:
    """A `ConversationStore` on the server at `url` (`valkey://`, `valkeys://`, `redis://`,
    `rediss://`).

    `clock` gives seconds since the epoch, `new_id` public ids; `retention_days` None keeps
    conversations for ever.
    """

    def __init__(
        self,
        url: str,
        *,
        retention_days: int | None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = new_public_id,
        lease_s: float = LEASE_S,
    ) -> None:
        self.lease_s = lease_s
        self.server = ValkeyServer(url)
        self._keep_s = None if retention_days is None else retention_days * _DAY_S
        self._clock = clock
        self._new_id = new_id

    async def open(self) -> None:
        """Looks whether the server is there, runs scripts and holds data of this release.

        Raises `StoreUnavailable`, and then has written nothing.
        """
        try:
            # A cluster, or a user who may run no scripts, shows only here.
            await self.count("", "", owner=None)
            await self._check_version()
        except BaseException:
            await self.server.close()
            raise

    async def close(self) -> None:
        """Closes the connections."""
        await self.server.close()

    async def load(self, key: ConversationKey, *, messages: int) -> Conversation:
        """The conversation with its newest `messages` messages. Raises `NotFound`."""
        found = await self._run(scripts.LOAD, place_of(key), [self._oldest(), max(messages, 0)])
        return decode_conversation(key, *found)

    async def create(
        self,
        key: ConversationKey,
        *,
        owner: str | None,
        subject: str | None,
        terms: Terms = NO_TERMS,
    ) -> Conversation:
        """A new conversation. Raises `Conflict` if the key is taken."""
        now = self._clock()
        new = Conversation(
            key, self._new_id(), owner, now, subject=subject, updated_at=now, terms=terms
        )
        await self._create(new)
        return new

    async def restore(self, conversation: Conversation) -> None:
        """Adds a whole conversation. Raises `Conflict` if its key or public id is taken."""
        messages = map(encode_message, conversation.messages)
        await self._create(conversation, [conversation.status, conversation.read, *messages])

    async def begin(
        self,
        key: ConversationKey,
        *,
        identity: str | None,
        create: bool,
        messages: int,
        once: Once | None = None,
    ) -> Leased | Recorded:
        """Lock and `load` in one step; see `ports.ConversationStore`."""
        nonce, now = new_nonce(), self._clock()
        at, stamp, keep, oldest_stamp = self._writing(now)
        arguments: list[Argument] = [
            self._oldest(),
            max(messages, 0),
            round(self.lease_s * 1000),
            nonce,
            int(create),
            optional(identity),
            key.tenant,
            once.scope if once else "",
            once.body if once else "",
            round(RECORD_S),
            RECORDS_PER_TENANT,
            at,
            self._new_id(),
            stamp,
            first_token(),
            keep,
            oldest_stamp,
        ]
        word, about, said, last = await self._answer(scripts.BEGIN, place_of(key), arguments)
        conversation = decode_conversation(key, about, said)
        if word == b"recorded":
            return Recorded(conversation, last)
        return Leased(conversation, Lease(key, int(last), nonce, once))

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Lets the leases live for another `lease_s`."""
        for first in range(0, len(leases), _RENEWED_TOGETHER):
            arguments: list[Argument] = [round(self.lease_s * 1000)]
            for lease in leases[first : first + _RENEWED_TOGETHER]:
                base, id_ = place_of(lease.key)
                arguments += [f"{base}l:{id_}", lease_text(lease)]
            await self._run(scripts.RENEW, ("", ""), arguments)

    async def commit(
        self, lease: Lease, messages: Sequence[Message], *, record: bytes | None = None
    ) -> None:
        """Adds the messages and ends the lease; see `ports.ConversationStore`."""
        kept = record is not None and len(record) <= RECORD_BYTES
        arguments: list[Argument] = [
            self._oldest(),
            lease_text(lease),
            lease.token,
            record_key(lease),
            record if record is not None and kept else "",
            round(RECORD_S),
            int(kept),
            *self._writing(self._clock()),
            *(encode_message(message) for message in messages),
        ]
        await self._run(scripts.COMMIT, place_of(lease.key), arguments)

    async def release(self, lease: Lease) -> None:
        """The end of the lease without a message."""
        await self._run(
            scripts.RELEASE, place_of(lease.key), [lease_text(lease), record_key(lease)]
        )

    async def update(
        self,
        key: ConversationKey,
        *,
        subject: str | None = None,
        status: ConversationStatus | None = None,
    ) -> Conversation:
        """The conversation after the change. Raises `NotFound`."""
        arguments: list[Argument] = [self._oldest(), optional(subject), status or ""]
        return decode_conversation(key, *await self._run(scripts.UPDATE, place_of(key), arguments))

    async def mark_read(self, key: ConversationKey, count: int) -> None:
        """Notes that the first `count` messages were read. Raises `NotFound`."""
        await self._run(scripts.MARK_READ, place_of(key), [self._oldest(), count])

    async def delete(self, key: ConversationKey) -> None:
        """Forgets the conversation and its messages. Raises `NotFound`."""
        await self._run(scripts.DELETE, place_of(key), [self._oldest()])

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
        """That owner's conversations, last written to first. Raises `BadRequest`."""
        before = "+"
        if cursor is not None:
            at, number = decode_cursor(cursor)
            before = f"({stamp_of(at)}:{number:018d}"
        oldest = self._oldest()
        arguments: list[Argument] = [
            oldest,
            stamp_of(float(oldest)),
            before,
            limit + 1,
            max(messages, 0),
        ]
        found = await self._run(
            scripts.RECENT, (base_of(tenant, dialect), owner_tag(owner)), arguments
        )
        page: list[Conversation] = []
        more = None
        for member, about, said in found[:limit]:
            at, number, id_ = member.split(b":", 2)
            if len(found) > limit:
                more = encode_cursor(float(at), int(number))
            if about:
                key = ConversationKey(tenant, dialect, id_.decode())
                page.append(decode_conversation(key, about, said))
        return ConversationPage(tuple(page), more)

    async def count(
        self, tenant: str, dialect: str, *, owner: str | None, unread: bool = False
    ) -> int:
        """How many conversations `recent` would give in all, or the unread ones of them."""
        arguments = ["u" if unread else "i", stamp_of(float(self._oldest()))]
        place = (base_of(tenant, dialect), owner_tag(owner))
        (number,) = await self._run(scripts.COUNT, place, arguments)
        return int(number)

    async def find(
        self, tenant: str, dialect: str, public_id: str, *, messages: int
    ) -> Conversation:
        """As `load`, by the public id. Raises `NotFound`."""
        arguments: list[Argument] = [self._oldest(), max(messages, 0)]
        place = (base_of(tenant, dialect), public_id)
        about, said, id_ = await self._run(scripts.FIND, place, arguments)
        return decode_conversation(ConversationKey(tenant, dialect, id_.decode()), about, said)

    async def history(self, key: ConversationKey, *, limit: int, after: int = 0) -> MessagePage:
        """The messages from the oldest on, `limit` at a time. Raises `NotFound`."""
        arguments: list[Argument] = [self._oldest(), after, limit]
        (said,) = await self._run(scripts.HISTORY, place_of(key), arguments)
        more = after + limit if len(said) > limit else None
        return MessagePage(tuple(map(decode_message, said[:limit])), more)

    async def scan(self, *, limit: int, cursor: str | None = None) -> ConversationPage:
        """Every conversation, those started first first. Raises `BadRequest`."""
        after = 0 if cursor is None else decode_cursor(cursor)[1]
        found = await self._run(scripts.SCAN, ("", ""), [after, limit + 1])
        page: list[Conversation] = []
        more = None
        for name, number, about in found[:limit]:
            if len(found) > limit:
                more = encode_cursor(0.0, int(number))
            tenant, dialect, _, id_ = name.decode().split(":", 3)
            if about:
                page.append(decode_conversation(ConversationKey(tenant, dialect, id_), about, []))
        oldest = float(self._oldest())
        return ConversationPage(tuple(one for one in page if one.updated_at >= oldest), more)

    async def _check_version(self) -> None:
        await self.server.command("SET", scripts.VERSION_KEY, VERSION, "NX")
        found = await self.server.command("GET", scripts.VERSION_KEY)
        if not isinstance(found, bytes) or not found.isdigit():
            raise StoreUnavailable(
                f"the store's server has something else at {scripts.VERSION_KEY}; "
                "set store.url to another database"
            )
        if int(found) > VERSION:
            raise StoreUnavailable(
                f"the store's server has data of version {int(found)} and this release knows up "
                f"to {VERSION}; run the newer release, or set store.url to another database"
            )

    async def _create(self, new: Conversation, restored: Sequence[Argument] = ()) -> None:
        """`restored` are status, read count and messages of one that was there before."""
        updated, stamp, keep, oldest_stamp = self._writing(new.updated_at)
        arguments: list[Argument] = [
            self._oldest(),
            new.public_id,
            optional(new.owner),
            optional(new.subject),
            repr(new.created_at),
            stamp,
            encode_terms(new.terms),
            first_token(),
            keep,
            oldest_stamp,
            updated,
            *restored,
        ]
        await self._run(scripts.CREATE, place_of(new.key), arguments)

    async def _run(
        self, script: Script, place: tuple[str, str], arguments: Sequence[Argument]
    ) -> Answer:
        """The answer without its word. Raises what the word stands for."""
        return (await self._answer(script, place, arguments))[1:]

    async def _answer(
        self, script: Script, place: tuple[str, str], arguments: Sequence[Argument]
    ) -> Answer:
        answer = await self.server.run(script, place, arguments)
        if answer[0] in _REFUSALS:
            kind, text = _REFUSALS[answer[0]]
            raise kind(text)
        return answer

    def _oldest(self) -> str:
        """The first moment at which what is kept may have been written to last."""
        return "0" if self._keep_s is None else repr(max(0.0, self._clock() - self._keep_s))

    def _writing(self, now: float) -> tuple[str, str, int, str]:
        """The time as text and as it sorts, how long to keep, and the oldest as it sorts."""
        return repr(now), stamp_of(now), self._keep_s or 0, stamp_of(float(self._oldest()))
