"""A good client that chats with a site while it is attacked, on connections of its own."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from tests.attack.site import GOOD, Held, Site, completes
from tests.e2e.wire import Exchange

_PAUSE_S: Final = 0.03
_PATIENCE_S: Final = 8.0


class GoodClient:
    """Turn after turn on HTTP/1.1 and HTTP/2 in turns; what did not complete is in `failures`."""

    def __init__(self, site: Site, name: str = "good") -> None:
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._site = site
        self._name = name
        self._stop = False
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> list[str]:
        """Ends after the turn that is under way; what did not complete, in words."""
        self._stop = True
        await self._task
        if not self.seconds and not self.failures:
            return ["the good client got no turn"]
        if not self.failures:
            return []
        turns = len(self.seconds) + len(self.failures)
        return [f"good client: {len(self.failures)} of {turns} turns failed ({self.failures[0]})"]

    async def _run(self) -> None:
        while not self._stop:
            await self.turn()
            await asyncio.sleep(_PAUSE_S)

    async def turn(self) -> bool:
        """One turn; whether it completed."""
        number = len(self.seconds) + len(self.failures)
        text = f"{self._name} {number}"
        began = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                wrong = await self._ask(text, http2=number % 2 == 1)
            good = not wrong
            if wrong:
                self.failures.append(f"{text}: {wrong}")
        except (OSError, EOFError, TimeoutError, AssertionError, ValueError) as error:
            self.failures.append(f"{text}: {error!r}")
            good = False
        if good:
            self.seconds.append(time.monotonic() - began)
        return good

    async def _ask(self, text: str, *, http2: bool) -> str:
        """What is wrong with the answer; nothing if it came whole."""
        request = self._site.ask(text, tenant=GOOD)
        if http2:
            async with await self._site.wire() as wire:
                return await _judged(await wire.ask(request), text)
        connection = await self._site.h1()
        try:
            return await _judged(await connection.send(request), text)
        finally:
            await connection.close()


async def _judged(exchange: Exchange, text: str) -> str:
    if await completes(exchange, f"You said: {text}"):
        return ""
    answer = exchange.answer
    return f"no whole answer: {answer.status} {answer.body[-80:]!r}, reset {answer.reset}"


async def warmed(site: Site) -> Held:
    """What the site holds at rest, once all is made that is made only once."""
    client = GoodClient(site, "warm")
    await asyncio.sleep(0.3)
    await client.stop()
    await asyncio.sleep(0.5)
    site.faults()
    return await site.held()


def p99_ms(seconds: Sequence[float]) -> float:
    """The 99th percentile in milliseconds; 0 of nothing."""
    if not seconds:
        return 0.0
    ranked = sorted(seconds)
    return ranked[min(len(ranked) - 1, int(len(ranked) * 0.99))] * 1000
