import asyncio
from dataclasses import replace
from typing import get_args

import pytest

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
    TurnStarted,
)
from gateway.messages import Headers, Once, Principal, TurnContext, Usage
from gateway.turn.idempotency import Repeat, Tape, TapedDownstream, once_of, replayed
from gateway.turn.tally import TurnTally
from gateway.turn.watch import Watch
from tests.turn.playbook import RecordingClient

PRINCIPAL = Principal("acme", "site", "default")
CONTEXT = TurnContext("t", "r", "m", "c", "trace", "model", "ndjson", 1763)
SHOWN: list[TurnEvent] = [
    ReasoningDelta("hm"),
    TextDelta("Hel"),
    TextDelta("lo 😀 \u2028"),
    ModerationReported("hate", False, None),
    CitationFound("1", "https://a.example", None, "cited"),
    ToolCallStarted("c1", "lookup"),
    ToolCallDelta("c1", '{"q"'),
    ToolCallDelta("c1", ":1}"),
    ToolCallEnded("c1", "lookup", '{"q":1}'),
    ToolReturned("c1", "lookup", '{"q":1}', "[]", 12, "ok"),
    GuardFired("phrases", "redirect", "no_go", "instead"),
]
CITATIONS = (CitationFound("1", "https://a.example", None, "cited"),)
GOOD: list[TurnEvent] = [
    RoundFinished("stop", Usage(3, 2)),
    TurnFinished("Hello", "stop", Usage(3, 2), 40, CITATIONS),
]
BAD: list[TurnEvent] = [TurnFailed("truncated", 40)]


def once(
    *values: str,
    principal: Principal = PRINCIPAL,
    route: str = "widget /chat",
    path: str = "/chat",
    body: bytes = b"{}",
) -> Once | None:
    headers = Headers(tuple(("idempotency-key", value) for value in values))
    return once_of(headers, principal, route=route, path=path, body=body)


class TestKey:
    def test_without_the_header_there_is_none(self) -> None:
        assert once() is None

    @pytest.mark.parametrize(
        "values",
        [("",), ("a b",), ("a\tb",), ("ä",), ("x" * 256,), ("a", "a"), ("a", "b")],
        ids=["empty", "space", "tab", "not ascii", "too long", "twice", "two"],
    )
    def test_a_key_that_is_none_is_refused(self, values: tuple[str, ...]) -> None:
        with pytest.raises(BadRequest):
            once(*values)

    @pytest.mark.parametrize("value", ["a", "x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'])
    def test_any_visible_text_is_a_key(self, value: str) -> None:
        assert once(value) == once(value)

    def test_everything_but_the_body_is_the_keys_scope(self) -> None:
        keys = [
            once("k"),
            once("l"),
            once("k", principal=replace(PRINCIPAL, tenant="globex")),
            once("k", principal=replace(PRINCIPAL, key="other")),
            once("k", principal=replace(PRINCIPAL, identity="email:ada@example.com")),
            once("k", route="widget /v1/chat"),
        ]
        assert len({key.scope for key in keys if key}) == len(keys)
        assert len({key.body for key in keys if key}) == 1

    def test_path_and_body_are_what_has_to_be_the_same(self) -> None:
        keys = [once("k"), once("k", body=b"{ }"), once("k", path="/chat2")]
        assert len({key.scope for key in keys if key}) == 1
        assert len({key.body for key in keys if key}) == len(keys)

    def test_nothing_of_the_request_is_in_it(self) -> None:
        found = once("secret-key", body=b"secret body")
        assert "secret" not in repr(found)


class TestTape:
    @pytest.mark.parametrize("ending", [GOOD, BAD], ids=["good", "bad"])
    def test_every_event_comes_back(self, ending: list[TurnEvent]) -> None:
        tape = Tape()
        for event in SHOWN:
            tape.take([event])
        record = tape.record(CONTEXT, ending)
        assert record is not None
        ids, events = replayed(record)
        assert events == [*SHOWN, *ending]
        other = replace(CONTEXT, turn_id="x", run_id="x", message_id="x", created_at=1)
        assert replace(other, **ids) == CONTEXT

    def test_the_samples_above_are_all_there_is(self) -> None:
        seen = {type(event) for event in (*SHOWN, *GOOD, *BAD)}
        assert seen == set(get_args(TurnEvent)) - {TurnStarted}

    @pytest.mark.parametrize(
        "event", [TextDelta("x" * 1000), ReasoningDelta("x" * 1000), ToolCallDelta("c", "x" * 1000)]
    )
    def test_what_is_too_long_is_not_recorded(self, event: TurnEvent) -> None:
        tape = Tape()
        for _ in range(100):
            tape.take([event])
        assert tape.record(CONTEXT, GOOD) is not None
        for _ in range(300):
            tape.take([event])
        assert tape.record(CONTEXT, GOOD) is None
        assert tape._events == []

    async def test_a_taped_client_gets_what_it_would_have_got(self) -> None:
        client, tape = RecordingClient(), Tape()
        taped = TapedDownstream(client, tape)
        assert not taped.opened
        await taped.begin()
        await taped.send([TextDelta("a"), TextDelta("b")])
        assert (taped.opened, taped.one_shot, taped.terminal_sent) == (True, False, False)
        await taped.finish(GOOD)
        assert taped.terminal_sent
        assert client.events == [TurnStarted(), TextDelta("a"), TextDelta("b"), *GOOD]
        record = tape.record(CONTEXT, GOOD)
        assert record is not None
        assert replayed(record)[1] == [TextDelta("a"), TextDelta("b"), *GOOD]


def repeat(client: RecordingClient, events: list[TurnEvent], *, send_s: float = 5) -> Repeat:
    client.watch = Watch(turn_s=5, send_s=send_s, keep_alive_s=5, keep_alive=client.keep_alive)
    return Repeat(events, client, client.watch, TurnTally("widget", "1.1", 0.0))


class TestRepeat:
    @pytest.mark.parametrize(("ending", "outcome"), [(GOOD, "ok"), (BAD, "truncated")])
    async def test_a_reply_is_sent_again_with_its_end(
        self, ending: list[TurnEvent], outcome: str
    ) -> None:
        client = RecordingClient()
        told = repeat(client, [TextDelta("a"), TextDelta("b"), *ending])
        await told.run()
        assert client.events == [TurnStarted(), TextDelta("a"), TextDelta("b"), *ending]
        assert (client.ended, told._tally.outcome) == (1, outcome)

    async def test_a_failure_that_was_in_a_stream_is_a_status_at_once(self) -> None:
        client = RecordingClient(one_shot=True)
        await repeat(client, [TextDelta("a"), *BAD]).run()
        assert isinstance(client.refused, Internal)
        assert (client.events, client.ended) == ([], 1)

    async def test_a_client_that_takes_nothing_is_left(self) -> None:
        client = RecordingClient(stall=True)
        told = repeat(client, [TextDelta("a"), *GOOD], send_s=0.05)
        await told.run()
        assert (client.ended, told._tally.outcome) == (0, "client_disconnect")

    async def test_a_client_that_goes_is_left(self) -> None:
        client = RecordingClient(stall=True)
        tallies: list[TurnTally] = []

        async def run() -> None:
            told = repeat(client, [TextDelta("a"), *GOOD])
            tallies.append(told._tally)
            await told.run()

        task = asyncio.create_task(run())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tallies[0].outcome == "client_disconnect"
