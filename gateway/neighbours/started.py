"""What a client starts a conversation with: its agent, values for its prompt, data of its own.

All of it is kept with the conversation and read back with every turn, so it is bounded.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from gateway.errors import NotFound
from gateway.requests import bad_field

MAX_VALUES: Final = 100
MAX_BYTES: Final = 16_384


def agent_named(name: str, known: Mapping[str, str]) -> str | None:
    """The configured agent behind a client's name for it, None (the key's own) where the tenant
    maps no names. Raises `NotFound`."""
    if not known:
        return None
    if name not in known:
        raise NotFound("unknown agent")
    return known[name]


def json_object(members: dict[str, object], name: str) -> dict[str, object] | None:
    """The member as an object of at most 16 KiB of JSON, None if it is missing or null.

    Raises `BadRequest`.
    """
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad_field(name, "must be an object")
    if len(orjson.dumps(value)) > MAX_BYTES:
        raise bad_field(name, f"must have at most {MAX_BYTES} bytes")
    return value


def text_values(members: dict[str, object], name: str) -> dict[str, str]:
    """The member as names with their texts, at most 100 of them. Raises `BadRequest`."""
    values = json_object(members, name) or {}
    if len(values) > MAX_VALUES:
        raise bad_field(name, f"must have at most {MAX_VALUES} members")
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    if len(texts) < len(values):
        raise bad_field(name, "must have strings only")
    return texts


def json_values(members: dict[str, object], name: str) -> dict[str, str]:
    """As `text_values`, with what is no text as its JSON, and null as nothing."""
    values = json_object(members, name) or {}
    written = {key: _written(value) for key, value in values.items()}
    return text_values({name: written}, name)


def _written(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()
