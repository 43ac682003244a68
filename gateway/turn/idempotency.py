"""`Idempotency-Key`: the same request again gets the first one's reply, and runs nothing.

The header is that of draft-ietf-httpapi-idempotency-key-header-07. Its value counts within a
tenant, a key or visitor, and a route, for ten minutes after the reply. Recorded is a turn that
left something in the history: a whole reply, or a part with the error that ended it. A turn that
left nothing may be tried again under its key. What is recorded is the turn's events and ids, so
the same dialect encodes the same bytes from them; pauses and keep-alives are not repeated.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson

from gateway.errors import BadRequest, Internal
from gateway.events import (
    CitationFound,
    GuardFired,
    ModerationReported,
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolCallDelta,
    ToolCallEnded,
    ToolCallStarted,
    ToolReturned,
    TurnEvent,
    TurnFailed,
    TurnFinished,
)
from gateway.messages import Headers, Once, Principal, TurnContext, Usage
from gateway.ports.turns import Downstream
from gateway.turn.tally import TurnTally
from gateway.turn.watch import Watch

HEADER: Final = "idempotency-key"
MAX_KEY: Final = 255
# What a tape may hold; a longer reply is not repeated. The store has a bound of its own, in bytes.
_MAX_CHARACTERS: Final = 262_144

_EVENTS: Final[dict[str, type[TurnEvent]]] = {
    kind.__name__: kind
    for kind in (
        TextDelta,
        ReasoningDelta,
        ToolCallStarted,
        ToolCallDelta,
        ToolCallEnded,
        ToolReturned,
        GuardFired,
        CitationFound,
        ModerationReported,
        RoundFinished,
        TurnFinished,
        TurnFailed,
    )
}
# What the first stream was told about itself, and the repeated one has to be told again.
_IDS: Final = ("turn_id", "run_id", "message_id", "trace_id", "model", "created_at")


def once_of(
    headers: Headers, principal: Principal, *, route: str, path: str, body: bytes
) -> Once | None:
    """The request's key and digest, None without the header.

    Raises `BadRequest` for two keys, or one that is not 1 to 255 visible ASCII characters.
    """
    if HEADER not in headers:
        return None
    values = headers.all(HEADER)
    key = values[0]
    if len(values) > 1 or not 1 <= len(key) <= MAX_KEY or not all("!" <= c <= "~" for c in key):
        raise BadRequest(f"{HEADER} must be one value of 1 to {MAX_KEY} visible characters")
    who = (principal.tenant, principal.key, principal.identity or "")
    return Once(_digest(*who, route, key), _digest(path, body))


def _digest(*parts: str | bytes) -> str:
    result = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        result.update(len(data).to_bytes(8, "big") + data)
    return result.hexdigest()


class Tape:
    """Collects a turn's events, up to a bound."""

    def __init__(self) -> None:
        self.model = ""
        self._events: list[TurnEvent] = []
        self._left = _MAX_CHARACTERS

    def take(self, events: Sequence[TurnEvent]) -> None:
        """Adds events that are about to be sent."""
        for event in events:
            self._left -= len(event.text) + 3 if type(event) is TextDelta else len(repr(event))
        if self._left < 0:
            self._events.clear()
        else:
            self._events += events

    def record(self, context: TurnContext, ending: Sequence[TurnEvent]) -> bytes | None:
        """All of it as bytes, the last events included; None if it became too long."""
        if self._left < 0:
            return None
        ids = {name: getattr(context, name) for name in _IDS}
        ids["model"] = self.model or context.model
        events = [_values(event) for event in (*self._events, *ending)]
        return orjson.dumps({"ids": ids, "events": events})


class TapedDownstream:
    """A `Downstream` that leaves a copy of what it is sent on a tape."""

    def __init__(self, down: Downstream, tape: Tape) -> None:
        self._down = down
        self._tape = tape
        self.refuse = down.refuse
        self.finish = down.finish
        self.one_shot = down.one_shot

    @property
    def opened(self) -> bool:
        """Whether the stream has begun."""
        return self._down.opened

    @property
    def terminal_sent(self) -> bool:
        """Whether the terminal record has gone."""
        return self._down.terminal_sent

    @property
    def gone(self) -> bool:
        """Whether the client has gone."""
        return self._down.gone

    async def begin(self, model: str = "") -> None:
        """Begins the stream; the tape keeps the model that it is told of, if it is."""
        if not self._down.opened:
            self._tape.model = model
        await self._down.begin(model)

    async def send(self, events: Sequence[TurnEvent]) -> None:
        """Hands the events on."""
        self._tape.take(events)
        await self._down.send(events)


class Repeat:
    """Sends a recorded reply to a client; `run` is called once, in the task that `watch` watches.

    Nothing but the client ends it: it has no clock but that of sending.
    """

    def __init__(
        self, events: Sequence[TurnEvent], down: Downstream, watch: Watch, tally: TurnTally
    ) -> None:
        self._events = events
        self._down = down
        self._watch = watch
        self._tally = tally

    async def run(self) -> None:
        """Sends all of it. Raises only `CancelledError`, when the client has gone."""
        self._watch.close_turn()
        try:
            await self._send()
        except asyncio.CancelledError:
            self._tally.outcome = "client_disconnect"
            task = asyncio.current_task()
            if self._watch.fault is None or task is None:
                raise
            task.uncancel()
        finally:
            self._watch.stop()

    async def _send(self) -> None:
        *events, last = self._events
        failure = last.kind if isinstance(last, TurnFailed) else None
        self._tally.outcome = failure or "ok"
        if failure and self._down.one_shot:
            # Recorded from a stream: what was shown there has no place in a single answer.
            await self._down.refuse(Internal("the recorded turn failed in its stream"))
            return
        await self._down.begin()
        if events:
            await self._down.send(events)
        await self._down.finish([last])


def replayed(record: bytes) -> tuple[dict[str, Any], list[TurnEvent]]:
    """A record's ids, as arguments of `TurnContext`, and its events."""
    content = orjson.loads(record)
    return content["ids"], [_event(values) for values in content["events"]]


def _values(event: TurnEvent) -> str | list[object]:
    # Most events of most replies are text: a record is mostly that.
    return event.text if type(event) is TextDelta else [type(event).__name__, asdict(event)]


def _event(values: str | list[Any]) -> TurnEvent:
    if isinstance(values, str):
        return TextDelta(values)
    name, fields = values
    if fields.get("usage") is not None:
        fields["usage"] = Usage(**fields["usage"])
    if "citations" in fields:
        fields["citations"] = tuple(CitationFound(**entry) for entry in fields["citations"])
    return _EVENTS[name](**fields)
