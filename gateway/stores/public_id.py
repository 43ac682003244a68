"""The ids by which clients may know a conversation: 32 of `[a-z0-9]`, 128 random bits."""

import secrets


def new_public_id() -> str:
    """An id that nobody can guess and nothing else has."""
    return secrets.token_hex(16)
