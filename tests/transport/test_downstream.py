import asyncio
from collections.abc import Sequence

import pytest

from gateway.errors import GatewayError, UpstreamError
from gateway.events import (
    RoundFinished,
    TextDelta,
    TurnEvent,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from gateway.messages import Reply
from gateway.transport.asgi import Exchange, ExchangeLimits, Message
from gateway.transport.downstream import ALONE_S, HttpDownstream
from gateway.turn.watch import NEVER, Watch


class Letters:
    """An encoder whose records are one letter each."""

    def __init__(
        self, *, apart: bool = False, ends_alone: bool = False, one_shot: bool = False
    ) -> None:
        self.apart = apart
        self.ends_alone = ends_alone
        self.one_shot = one_shot
        self.said = False

    def head(self) -> Reply:
        return Reply(200, (("content-type", "text/plain"),))

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TurnStarted):
            return () if self.one_shot else (b"<",)
        if isinstance(event, TextDelta):
            self.said = True
            return () if self.one_shot else tuple(letter.encode() for letter in event.text)
        if isinstance(event, TurnFinished):
            return (event.text.encode() if self.one_shot else b">",)
        return ()

    def keep_alive(self) -> Sequence[bytes]:
        return (b"," if self.said else b".",)

    def shown(self, event: TurnFinished) -> str:
        return event.text


class Rig:
    def __init__(self, *, http_version: str = "1.1", **encoder: bool) -> None:
        self.sent: list[Message] = []
        self.sent_at: list[float] = []
        self.taking = asyncio.Event()
        self.taking.set()
        scope: Message = {
            "type": "http",
            "method": "POST",
            "path": "/chat",
            "http_version": http_version,
            "headers": [],
        }
        incoming: asyncio.Queue[Message] = asyncio.Queue()
        incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self.exchange = Exchange(scope, incoming.get, self._send, ExchangeLimits(10, 1))
        self._encoder = Letters(**encoder)

    async def __aenter__(self) -> HttpDownstream:
        self.started = asyncio.Event()
        self.over = asyncio.Event()
        self.task = asyncio.create_task(self.exchange.run(self._hold))
        await self.started.wait()
        return self.down

    async def __aexit__(self, *_: object) -> None:
        self.over.set()
        await self.task

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.sent if m["type"] == "http.response.body" and m["body"]]

    async def _hold(self, exchange: Exchange) -> None:
        self.down = HttpDownstream(exchange, self._encoder, _refusal)
        self.watch = self.down.watch = Watch(
            turn_s=5, send_s=5, keep_alive_s=5, keep_alive=self.down.keep_alive
        )
        self.started.set()
        await self.over.wait()
        self.watch.stop()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self.sent_at.append(asyncio.get_running_loop().time())
        await self.taking.wait()


def _refusal(error: GatewayError) -> Reply:
    return Reply(error.status, (), error.kind.encode())


END: list[TurnEvent] = [RoundFinished("stop", None), TurnFinished("ab", "stop", None, 1, ())]


async def test_head_and_opening_record_leave_together_and_once() -> None:
    rig = Rig()
    async with rig as down:
        await down.begin()
        await down.begin()
        assert [message["type"] for message in rig.sent] == [
            "http.response.start",
            "http.response.body",
        ]
        assert rig.bodies == [b"<"]
        assert down.opened


async def test_records_may_share_a_body_message() -> None:
    rig = Rig()
    async with rig as down:
        await down.begin()
        await down.send([TextDelta("ab"), TextDelta("c")])
        await down.finish(END)
    assert rig.bodies == [b"<", b"abc", b">"]
    assert not rig.sent[-1]["more_body"]
    assert rig.exchange.sent_bytes == 5


async def test_records_that_stand_alone_get_a_body_message_each() -> None:
    rig = Rig(apart=True, http_version="2")
    async with rig as down:
        await down.begin()
        await down.send([TextDelta("ab")])
    assert rig.bodies == [b"<", b"a", b"b"]


@pytest.mark.parametrize("http_version", ["1.1", "2"])
async def test_a_last_record_that_is_read_alone_comes_a_moment_after_the_others(
    http_version: str,
) -> None:
    rig = Rig(apart=True, ends_alone=True, http_version=http_version)
    async with rig as down:
        await down.begin()
        await down.send([TextDelta("ab")])
        await down.finish([TextDelta("c"), *END])
    assert rig.bodies == [b"<", b"a", b"b", b"c", b">"]
    spoken, ended = rig.sent_at[4:6]
    assert ended - spoken >= ALONE_S / 2


async def test_a_one_shot_answer_is_one_message_at_the_end() -> None:
    rig = Rig(one_shot=True)
    async with rig as down:
        await down.begin()
        await down.send([TextDelta("ab")])
        assert rig.sent == []
        assert not down.opened
        await down.finish(END)
    assert rig.bodies == [b"ab"]
    assert (b"content-length", b"2") in rig.sent[0]["headers"]


async def test_a_failure_before_anything_was_sent_is_a_status() -> None:
    rig = Rig()
    async with rig as down:
        await down.refuse(UpstreamError())
    assert rig.sent[0]["status"] == 502
    assert rig.bodies == [b"upstream_error"]


async def test_a_keep_alive_opens_the_stream_if_nothing_has() -> None:
    rig = Rig()
    async with rig as down:
        await down.keep_alive()
        await down.begin()
    assert rig.bodies == [b"<", b"."]


async def test_a_one_shot_answer_has_no_keep_alives() -> None:
    rig = Rig(one_shot=True)
    async with rig as down:
        await down.keep_alive()
    assert rig.sent == []


async def test_the_send_clock_runs_only_while_a_write_waits() -> None:
    rig = Rig()
    async with rig as down:
        await down.begin()
        await down.send([TextDelta("a")])
        assert rig.watch.sending_since == NEVER


async def test_what_comes_during_a_keep_alive_is_encoded_behind_it() -> None:
    rig = Rig()
    async with rig as down:
        rig.taking.clear()
        filling = asyncio.create_task(down.keep_alive())
        await asyncio.sleep(0)
        await down.begin()
        sending = asyncio.create_task(down.send([TextDelta("a")]))
        await asyncio.sleep(0)
        rig.taking.set()
        await asyncio.gather(filling, sending)
    assert rig.bodies == [b"<", b".", b"a"]


async def test_the_end_comes_behind_a_keep_alive_that_is_being_written() -> None:
    rig = Rig()
    async with rig as down:
        rig.taking.clear()
        filling = asyncio.create_task(down.keep_alive())
        await asyncio.sleep(0)
        finishing = asyncio.create_task(down.finish([TextDelta("a"), *END]))
        await asyncio.sleep(0)
        rig.taking.set()
        await asyncio.gather(filling, finishing)
    assert rig.bodies == [b"<", b".", b"a>"]


async def test_a_keep_alive_that_comes_too_late_does_not_open_a_refused_stream() -> None:
    rig = Rig()
    async with rig as down:
        rig.taking.clear()
        refusing = asyncio.create_task(down.refuse(UpstreamError()))
        await asyncio.sleep(0)
        await asyncio.wait_for(down.keep_alive(), 1)
        rig.taking.set()
        await refusing
    assert [message["status"] for message in rig.sent if "status" in message] == [502]
    assert rig.bodies == [b"upstream_error"]


async def test_nothing_follows_the_terminal_record() -> None:
    rig = Rig()
    async with rig as down:
        await down.begin()
        rig.taking.clear()
        finishing = asyncio.create_task(down.finish(END))
        await asyncio.sleep(0)
        await asyncio.wait_for(down.keep_alive(), 1)
        rig.taking.set()
        await finishing
        await down.keep_alive()
    assert rig.bodies == [b"<", b">"]


async def test_a_write_in_progress_needs_no_keep_alive() -> None:
    rig = Rig()
    async with rig as down:
        await down.begin()
        rig.taking.clear()
        sending = asyncio.create_task(down.send([TextDelta("a")]))
        await asyncio.sleep(0)
        await asyncio.wait_for(down.keep_alive(), 1)
        rig.taking.set()
        await sending
    assert rig.bodies == [b"<", b"a"]


async def test_the_send_clock_stops_with_a_write_that_was_cancelled() -> None:
    rig = Rig()
    async with rig as down:
        rig.taking.clear()
        beginning = asyncio.create_task(down.begin())
        await asyncio.sleep(0)
        assert rig.watch.sending_since != NEVER
        beginning.cancel()
        await asyncio.wait([beginning])
        assert rig.watch.sending_since == NEVER
        rig.taking.set()


class Tongueless(Letters):
    """An encoder with a fault in its last words."""

    def encode(self, event: TurnEvent) -> Sequence[bytes]:
        if isinstance(event, TurnFinished):
            raise ZeroDivisionError
        return (b"!",) if isinstance(event, TurnFailed) else super().encode(event)


@pytest.mark.parametrize("one_shot", [False, True])
async def test_a_fault_in_the_last_words_leaves_the_failure_to_be_told(one_shot: bool) -> None:
    rig = Rig(one_shot=one_shot)
    rig._encoder = Tongueless(one_shot=one_shot)
    async with rig as down:
        await down.begin()
        with pytest.raises(ZeroDivisionError):
            await down.finish(END)
        assert not down.terminal_sent
        if one_shot:
            assert not down.opened
            await down.refuse(UpstreamError())
        else:
            await down.finish([TurnFailed("internal", 1)])
            assert rig.bodies[-1] == b"!"
    assert not rig.sent[-1]["more_body"]
