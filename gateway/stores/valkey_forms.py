"""How the store on a Valkey or Redis server names its keys and writes its values."""

from typing import Any

import orjson

from gateway.messages import Conversation, ConversationKey, KeptCall, Lease, Message
from gateway.stores.forms import decode_terms


def base_of(tenant: str, dialect: str) -> str:
    """The beginning of the keys of a tenant and dialect."""
    return f"{tenant}:{dialect}:"


def place_of(key: ConversationKey) -> tuple[str, str]:
    """A conversation as the scripts are given it: the beginning of its keys, and its id."""
    return base_of(key.tenant, key.dialect), key.id


def lease_text(lease: Lease) -> str:
    """A lease as its key holds it."""
    return f"{lease.token}:{lease.nonce}"


def record_key(lease: Lease) -> str:
    """The key of the reply that the lease's turn records; "" for none."""
    return f"{lease.key.tenant}:r:{lease.once.scope}" if lease.once else ""


def owner_tag(owner: str | None) -> str:
    """The end of the keys of an owner's lists."""
    return "n" if owner is None else f"o{owner}"


def optional(text: str | None) -> str:
    """A text that may be absent, as the scripts tell the two apart."""
    return "" if text is None else f"={text}"


def stamp_of(seconds: float) -> str:
    """Epoch seconds as text that sorts as the numbers do."""
    return f"{seconds:022.9f}"


def encode_message(message: Message) -> bytes:
    """A message as its list holds it."""
    calls = [list(call) for call in message.calls]
    return orjson.dumps(
        [message.id, message.role, message.text, message.created_at, message.status, calls]
    )


def decode_message(data: bytes) -> Message:
    """The message that `encode_message` wrote."""
    id_, role, text, created_at, status, calls = orjson.loads(data)
    return Message(id_, role, text, created_at, status, tuple(KeptCall(*call) for call in calls))


def decode_conversation(
    key: ConversationKey, about: list[bytes], said: list[bytes]
) -> Conversation:
    """A conversation from the fields of its hash, names and values in turn."""
    fields: dict[bytes, bytes] = dict(zip(about[::2], about[1::2], strict=True))
    status: Any = fields[b"st"].decode()
    return Conversation(
        key,
        fields[b"p"].decode(),
        _text(fields.get(b"o")),
        float(fields[b"ca"]),
        tuple(map(decode_message, said)),
        _text(fields.get(b"s")),
        float(fields[b"ua"]),
        int(fields[b"len"]),
        int(fields[b"read"]),
        status,
        decode_terms(fields[b"t"].decode()),
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()
