"""New ids of 128 random bits, as text: UUIDs of version 4 (RFC 9562 section 5.4) and plain ones.

The randomness is the operating system's, read for many ids at once: every read is a moment in which
the store's threads may take the interpreter from the loop.
"""

import os
from collections.abc import Iterator
from typing import Final

_ID_BYTES: Final = 16
_AT_ONCE: Final = 256
_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


class NewIds:
    """Makes UUIDs."""

    def __init__(self) -> None:
        self._random = _random()

    def __call__(self) -> str:
        """An id that nobody can guess and nothing else has."""
        digits = next(self._random)
        return (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-"
            f"{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
        )


class NewPublicIds:
    """Makes ids by which clients may know a conversation; see `stores.public_id`."""

    def __init__(self) -> None:
        self._random = _random()

    def __call__(self) -> str:
        """An id that nobody can guess and nothing else has."""
        return next(self._random)


def _random() -> Iterator[str]:
    while True:
        digits = os.urandom(_ID_BYTES * _AT_ONCE).hex()
        for at in range(0, len(digits), 2 * _ID_BYTES):
            yield digits[at : at + 2 * _ID_BYTES]
