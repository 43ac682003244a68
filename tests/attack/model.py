"""The scripted model of an attacked site: what it plays is chosen by the newest message's text.

So an attack and the good client beside it never take each other's replies. A text without a
script is repeated to the client.
"""

import asyncio
from typing import Final

from tests.model_streams import openai_chunk, openai_stream
from tests.upstream import Script, ScriptedUpstream, Seen, Wait, stream

FIRST, SECOND = "First", " second"
_EIGHT_KB: Final = "x" * 8000
_POUR: Final = openai_chunk({"content": _EIGHT_KB}) * 8


class Model:
    """Scripts by text, and who asked for what."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.upstream = upstream
        self._scripts: dict[str, Script] = {}
        self._seen: dict[str, list[Seen]] = {}
        upstream.play(self._play)

    def _play(self, seen: Seen) -> Script:
        text = newest(seen)
        self._seen.setdefault(text, []).append(seen)
        said = self._scripts.get(text)
        return said or stream(b"".join(openai_stream([f"You said: {text}"])))

    def says(self, text: str, script: Script) -> None:
        """Plays this whenever it is asked with that text."""
        self._scripts[text] = script

    def holds(self, text: str, first: str = FIRST) -> asyncio.Event:
        """Says `first`, then `SECOND` once the event is set."""
        gate = asyncio.Event()
        beginning = [openai_chunk({"role": "assistant", "content": ""})]
        if first:
            beginning.append(openai_chunk({"content": first}))
        end = openai_stream([SECOND])[1:]
        self.says(text, stream(b"".join(beginning), Wait(gate), b"".join(end)))
        return gate

    def pours(self, text: str, megabytes: int) -> None:
        """Says that many megabytes without a pause."""
        times = megabytes * 1_000_000 // len(_POUR) + 1
        self.says(text, stream(*([_POUR] * times), *openai_stream(["end"])[1:]))

    def seen(self, text: str) -> list[Seen]:
        """The calls with that text."""
        return self._seen.get(text, [])

    async def called(self, text: str, times: int = 1) -> list[Seen]:
        """The calls with that text, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.seen(text)) < times:
                await asyncio.sleep(0.005)
        return self.seen(text)

    async def is_left(self, text: str, within: float) -> bool:
        """Whether every call with that text ends, or is left by the gateway, in time."""
        waits = [asyncio.create_task(_over(seen)) for seen in self.seen(text)]
        if not waits:
            return True
        _, late = await asyncio.wait(waits, timeout=within)
        for wait in late:
            wait.cancel()
        return not late

    @property
    def running(self) -> int:
        """Calls that are neither over nor left."""
        return sum(
            not (seen.finished.is_set() or seen.gone.is_set())
            for calls in self._seen.values()
            for seen in calls
        )

    def forget(self) -> None:
        """Drops the scripts and what was seen."""
        self._scripts.clear()
        self._seen.clear()
        self.upstream.requests.clear()


def newest(seen: Seen) -> str:
    """The text of the newest message of a call."""
    messages = seen.json["messages"]
    assert isinstance(messages, list)
    return str(messages[-1]["content"])


async def _over(seen: Seen) -> None:
    waits = {asyncio.create_task(seen.finished.wait()), asyncio.create_task(seen.gone.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
