"""The start of `gateway serve`, up to the supervisor.

Exit codes: 0 after a signal, 1 for what could not start or go on, 2 for a configuration that
cannot serve.
"""

import asyncio
from pathlib import Path
from typing import Final

from gateway.demo import Demo, DemoError
from gateway.serving.child import Patience
from gateway.serving.listeners import ListenError
from gateway.serving.reload import Source
from gateway.serving.supervisor import Supervisor, say
from gateway.serving.workers import WorkersError
from gateway.settings import Settings, credential_count
from gateway.telemetry import logs
from gateway.upstreams.embedded import StartError

_DEMO_FILE: Final = Path("var/demo.json")


def run(settings: Settings, source: Source, *, demo: bool, patience: Patience | None = None) -> int:
    """Serves `settings`, which came from `source`, until SIGINT or SIGTERM; the exit code."""
    try:
        shown = Demo.load(_DEMO_FILE) if demo else None
    except DemoError as error:
        say(f"gateway: {error}")
        return 1
    if shown is not None:
        settings = shown.applied_to(settings)
    if not credential_count(settings) and not settings.server.allow_no_keys:
        say(
            "gateway: no tenant has a key or a session secret, so nobody could ask anything.\n"
            "Make one with `gateway keys new`, or set server.allow_no_keys to start all the same."
        )
        return 2
    logs.configure()
    try:
        return asyncio.run(_supervise(settings, source, shown, patience))
    except (ListenError, DemoError, StartError, WorkersError) as error:
        say(f"gateway: {error}")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        logs.shutdown()


async def _supervise(
    settings: Settings, source: Source, demo: Demo | None, patience: Patience | None
) -> int:
    return await Supervisor(settings, source, demo, patience).run()
