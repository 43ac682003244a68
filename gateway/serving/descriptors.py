"""The descriptors of a process: its clients' connections leave some for its own.

A turn needs one for the call of its model, and so does a store that has to be reached anew. If
strangers could take the last one, with connections on which they say nothing, every turn would
fail. Connections take the lowest free numbers first, so the number of one tells how many are left.
"""

import errno
import os
import resource
import sys
from typing import Final

_KEPT: Final = 256  # of many; an eighth of few
_MOST: Final = 16_384
_PER_TURN: Final = 8


def provide(turns: int) -> None:
    """Lets this process have as many as `turns` turns and many idle clients need, if the system
    grants so many, and no more: a connection costs 8 KB of memory, and 46 in a TLS handshake."""
    wanted = max(_MOST, _PER_TURN * turns)
    _, granted = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if granted == resource.RLIM_INFINITY else min(wanted, granted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, granted))


def first_kept() -> int:
    """The lowest number that is not for a client's connection."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - min(_KEPT, limit // 8)


def are_scarce() -> bool:
    """Whether none is left for another connection."""
    try:
        lowest = os.dup(0)
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    os.close(lowest)
    return lowest >= first_kept()
