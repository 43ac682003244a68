"""New ids: UUIDs of version 4 (RFC 9562 section 5.4) as text."""

import os
from collections.abc import Iterator
from typing import Final
from uuid import UUID

_UUID_BYTES: Final = 16
_AT_ONCE: Final = 256


class NewIds:
    """Makes ids, from randomness of the operating system that is read for many of them at once.

    Every read is a moment in which the store's threads may take the interpreter from the loop.
    """

    def __init__(self) -> None:
        self._ids = _ids()

    def __call__(self) -> str:
        """An id that nobody can guess and nothing else has."""
        return next(self._ids)


def _ids() -> Iterator[str]:
    while True:
        random = os.urandom(_UUID_BYTES * _AT_ONCE)
        for at in range(0, len(random), _UUID_BYTES):
            yield str(UUID(bytes=random[at : at + _UUID_BYTES], version=4))
