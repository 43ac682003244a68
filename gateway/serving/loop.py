"""Which event loop serves: uvloop where it is installed."""

import asyncio
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes event loops; None for asyncio's own, which serves as well, somewhat slower."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
