"""The client's side of one turn: turn events in, body messages out.

Every event passes the grammar, so the encoder may rely on its order. Records that must stand
alone get a body message each, and on HTTP/2, where several come at once, a pass of the event loop
each too: clients that parse each read as whole records would lose some, and frames that are
written apart are mostly read apart. Browsers join what comes while they are busy, so a last record
that must be read alone comes a moment later.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from gateway.errors import GatewayError
from gateway.events import TurnEvent, TurnFinished, TurnStarted
from gateway.grammar import Grammar
from gateway.messages import Reply
from gateway.ports.codecs import Encoder
from gateway.transport.asgi import Exchange
from gateway.turn.watch import NEVER, Watch

ALONE_S: Final = 0.01


class HttpDownstream:
    """`ports.Downstream` over an ASGI exchange; `alone_s` is the moment before a last record that
    is to be read alone."""

    def __init__(
        self,
        exchange: Exchange,
        encoder: Encoder,
        encode_error: Callable[[GatewayError], Reply],
        *,
        alone_s: float = ALONE_S,
    ) -> None:
        self.opened = False
        self.terminal_sent = False
        self.one_shot = encoder.one_shot
        self.watch: Watch
        self._exchange = exchange
        self._encoder = encoder
        self._encode_error = encode_error
        self._grammar = Grammar()
        self._space_records = encoder.apart and exchange.head.http_version == "2"
        self._alone_s = alone_s
        self._begun = False
        self._ending = False
        self._keep_alive_done: asyncio.Event | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def gone(self) -> bool:
        """Whether the client has gone."""
        return self._exchange.gone

    def shown(self, event: TurnFinished) -> str:
        """The whole reply's text as the client shows it in the end."""
        return self._encoder.shown(event)

    async def begin(self, model: str = "") -> None:
        """Sends the head and the opening record; once. `model` is the one that answers."""
        if self._begun:
            return
        self._begun = True
        started = TurnStarted(model)
        self._grammar.advance(started)
        records = self._encoder.encode(started)
        if not self.one_shot:
            self.opened = True
            await self._clocked(self._exchange.start(self._encoder.head()))
            await self._put(records)
            if self._space_records:
                await asyncio.sleep(0)

    async def send(self, events: Sequence[TurnEvent]) -> None:
        """Encodes the events and hands their records to the server."""
        if self._keep_alive_done is not None:
            await self._keep_alive_done.wait()
        await self._put(self._encode(events[0]) if len(events) == 1 else self._encode_all(events))

    async def finish(self, events: Sequence[TurnEvent]) -> None:
        """Sends the last events and ends the stream."""
        self._ending = True
        await self.begin()
        if self._keep_alive_done is not None:
            await self._keep_alive_done.wait()
        records = self._encode_all(events)
        self.terminal_sent = True
        if not self.one_shot:
            if self._encoder.ends_alone:
                await self._put(records[:-1])
                # The client knows that this was all: it may leave now, and the turn was a good one.
                self._exchange.cancel_when_gone = False
                await asyncio.sleep(self._alone_s)
                records = records[-1:]
            await self._put(records)
            await self._clocked(self._exchange.end())
            return
        self.opened = True
        body = b"".join(records)
        head = self._encoder.head()
        await self._clocked(self._exchange.reply(Reply(head.status, head.headers, body)))

    async def refuse(self, error: GatewayError) -> None:
        """Answers with the dialect's status for the error."""
        self.opened = self._ending = True
        reply = self._encode_error(error)
        await self._clocked(self._exchange.reply(reply))

    async def keep_alive(self) -> None:
        """Fills a silence, with the head and the opening record before it if none went yet.

        Does nothing if the silence has ended meanwhile.
        """
        if self.one_shot or self._exchange.gone or self._ending:
            return
        if self.watch.sending_since != NEVER:
            return
        self._keep_alive_done = done = asyncio.Event()
        try:
            await self.begin()
            await self._put(self._encoder.keep_alive())
        finally:
            self._keep_alive_done = None
            done.set()

    def _encode(self, event: TurnEvent) -> Sequence[bytes]:
        records = self._encoder.encode(event)
        # Only what could be encoded counts as told: after a fault the turn may still fail.
        self._grammar.advance(event)
        return records

    def _encode_all(self, events: Sequence[TurnEvent]) -> list[bytes]:
        return [record for event in events for record in self._encode(event)]

    async def _put(self, records: Sequence[bytes]) -> None:
        if not records:
            return
        if len(records) > 1 and not self._encoder.apart:
            records = (b"".join(records),)
        watch = self.watch
        watch.sending_since = self._loop.time()
        spaced = self._space_records and len(records) > 1
        try:
            for record in records:
                await self._exchange.write(record)
                if spaced:
                    await asyncio.sleep(0)
        finally:
            watch.sending_since = NEVER
        watch.wrote_at = self._loop.time()

    async def _clocked(self, sending: Coroutine[None, None, None]) -> None:
        self.watch.sending_since = self._loop.time()
        try:
            await sending
        finally:
            self.watch.sending_since = NEVER
        self.watch.wrote_at = self._loop.time()
