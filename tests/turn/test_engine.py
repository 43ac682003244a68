import asyncio

import pytest

from gateway.errors import (
    ContextLength,
    Drained,
    GatewayError,
    ReplyTooLong,
    StoreUnavailable,
    Truncated,
    UpstreamError,
)
from gateway.events import (
    FinishReason,
    ModelEvent,
    ModelFinished,
    ModerationReported,
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
from gateway.messages import PromptMessage, Usage
from tests.turn.playbook import Play, RecordingClient, ScriptedModel, Step, until

USAGE = Usage(3, 2)
STOP = ModelFinished("stop", USAGE)


def texts(events: list[TurnEvent]) -> list[str]:
    return [event.text for event in events if isinstance(event, TextDelta)]


def terminal(play: Play) -> TurnFinished | TurnFailed:
    last = play.client.events[-1]
    assert isinstance(last, TurnFinished | TurnFailed)
    return last


async def test_a_good_turn_streams_stores_releases_and_ends_once() -> None:
    play = await Play(ScriptedModel([[TextDelta("Hel")], [], [TextDelta("lo"), STOP]])).run()
    finished = terminal(play)
    assert isinstance(finished, TurnFinished)
    assert (finished.text, finished.reason, finished.usage) == ("Hello", "stop", USAGE)
    assert play.client.events[:-1] == [
        TurnStarted("m"),
        TextDelta("Hel"),
        TextDelta("lo"),
        RoundFinished("stop", USAGE),
    ]
    assert play.kept == [("Hello", "complete")]
    assert play.released_before_end
    assert play.client.ended == 1
    assert (play.tally.outcome, play.tally.deltas, play.tally.delivered) == ("ok", 2, 2)


async def test_nothing_of_a_one_shot_answer_is_delivered_before_all_of_it_is() -> None:
    for last, delivered in ((STOP, 2), (UpstreamError(), 0)):
        end: Step = [last] if isinstance(last, ModelFinished) else last
        client = RecordingClient(one_shot=True)
        model = ScriptedModel([[TextDelta("a")], 0.05, [TextDelta("b")], end])
        tally = (await Play(model, client=client).run()).tally
        assert (tally.deltas, tally.delivered) == (2, delivered)
        if delivered:
            assert tally.first_delivered is not None
            assert tally.first_generated is not None
            assert tally.first_delivered - tally.first_generated >= 0.04
        else:
            assert tally.first_delivered is None


async def test_deltas_of_one_read_are_joined() -> None:
    events: list[ModelEvent] = [TextDelta("a"), TextDelta("b"), TextDelta("c"), STOP]
    play = await Play(ScriptedModel([events])).run()
    assert texts(play.client.events) == ["abc"]
    assert play.tally.deltas == 3


async def test_what_comes_before_the_first_token_is_kept_in_order() -> None:
    judged = ModerationReported("hate", False, "safe")
    play = await Play(ScriptedModel([[judged], [TextDelta("a")], [STOP]])).run()
    assert play.client.events[1:3] == [judged, TextDelta("a")]


async def test_an_empty_reply_is_a_good_turn_without_a_first_token_time() -> None:
    play = await Play(ScriptedModel([[STOP]])).run()
    assert isinstance(terminal(play), TurnFinished)
    assert play.kept == [("", "complete")]
    assert play.tally.first_generated is None


async def test_a_failure_before_the_first_token_is_a_status_and_leaves_no_history() -> None:
    play = await Play(ScriptedModel([UpstreamError()])).run()
    assert isinstance(play.client.refused, UpstreamError)
    assert play.client.events == []
    assert play.kept == []
    assert play.tally.outcome == "upstream_error"
    assert play.tally.rounds[0].error == "upstream_error"


async def test_a_failure_after_the_first_token_is_an_event_and_keeps_what_was_shown() -> None:
    model = ScriptedModel([[TextDelta("Hel")], Truncated()])
    play = await Play(model).run()
    failed = terminal(play)
    assert isinstance(failed, TurnFailed)
    assert failed.kind == "truncated"
    assert play.kept == [("Hel", "partial")]
    assert play.released_before_end
    assert play.client.ended == 1
    assert model.streams[0].closed


async def test_a_prompt_that_the_model_finds_too_long_loses_its_oldest_exchanges() -> None:
    past = [(PromptMessage("user", f"q{n}"), PromptMessage("assistant", f"a{n}")) for n in range(4)]
    model = ScriptedModel(ContextLength(), ContextLength(), [[TextDelta("ok"), STOP]])
    play = await Play(model, past=past).run()
    assert [len(prompt.messages) for prompt in model.prompts] == [9, 3, 1]
    assert model.prompts[-1].messages == (PromptMessage("user", "hello"),)
    assert texts(play.client.events) == ["ok"]


async def test_a_message_that_is_too_long_by_itself_is_refused() -> None:
    play = await Play(ScriptedModel(ContextLength())).run()
    assert isinstance(play.client.refused, ContextLength)


async def test_a_reply_that_cannot_be_stored_is_not_called_good() -> None:
    model = ScriptedModel([[TextDelta("a"), STOP]])
    play = await Play(model, store_error=StoreUnavailable()).run()
    failed = terminal(play)
    assert isinstance(failed, TurnFailed)
    assert failed.kind == "store_unavailable"


async def test_a_reply_over_output_bytes_ends_as_truncated() -> None:
    model = ScriptedModel([[TextDelta("x" * 60)], [TextDelta("x" * 60)], [STOP]])
    play = await Play(model, output_bytes=100).run()
    failed = terminal(play)
    assert isinstance(failed, TurnFailed)
    assert failed.kind == "truncated"
    assert play.kept == [("x" * 60, "partial")]
    assert (play.tally.deltas, play.tally.delivered) == (2, 1)
    assert [type(error) for error in model.ends] == [ReplyTooLong]  # the gateway's own cut


@pytest.mark.parametrize(
    ("clock", "steps", "kind"),
    [
        ("first_token_s", [[], 30.0], "upstream_timeout"),
        ("total_s", [[], 30.0], "upstream_timeout"),
        ("idle_s", [[TextDelta("a")], 30.0], "upstream_timeout"),
    ],
)
async def test_each_clock_of_a_model_ends_the_turn(
    clock: str, steps: list[object], kind: str
) -> None:
    model = ScriptedModel(steps, **{clock: 0.1})  # type: ignore[arg-type]  # one of three clocks
    play = await Play(model).run()
    assert play.tally.outcome == kind
    assert play.client.ended == 1
    assert model.streams[0].closed


async def test_reads_without_a_token_do_not_satisfy_the_first_token_clock() -> None:
    steps: list[object] = []
    for _ in range(100):
        steps += [[], 0.02]
    model = ScriptedModel(steps, first_token_s=0.2)  # type: ignore[arg-type]  # a list of steps
    play = await Play(model).run()
    assert play.tally.outcome == "upstream_timeout"


async def test_the_turns_own_deadline_ends_it() -> None:
    play = await Play(ScriptedModel([[TextDelta("a")], 30.0]), turn_s=0.5).run()
    failed = terminal(play)
    assert isinstance(failed, TurnFailed)
    assert failed.kind == "deadline"
    assert play.kept == [("a", "partial")]


async def test_a_drained_worker_ends_the_turn_in_the_dialects_own_way() -> None:
    play = Play(ScriptedModel([[TextDelta("a")], 30.0]))
    running = asyncio.create_task(play.run())
    await asyncio.sleep(0.05)
    play.watch.stop_turn(Drained())
    await running
    failed = terminal(play)
    assert isinstance(failed, TurnFailed)
    assert failed.kind == "drained"


async def test_a_client_that_takes_nothing_is_given_up() -> None:
    client = RecordingClient(stall=True)
    model = ScriptedModel([[TextDelta("a")], 30.0])
    play = await Play(model, client=client, send_s=0.1).run()
    assert play.tally.outcome == "client_disconnect"
    assert client.ended == 0
    assert model.streams[0].closed


async def test_what_a_finished_model_billed_is_counted_though_nobody_takes_its_last_words() -> None:
    client = RecordingClient(stall=True)
    play = await Play(ScriptedModel([[TextDelta("a"), STOP]]), client=client, send_s=0.1).run()
    assert (play.tally.outcome, play.tally.usage) == ("client_disconnect", STOP.usage)


async def test_a_client_that_goes_away_closes_the_model_call_and_keeps_what_it_saw() -> None:
    model = ScriptedModel([[TextDelta("a")], 30.0])
    play = Play(model)
    running = asyncio.create_task(play.run())
    await until(lambda: texts(play.client.events) == ["a"])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert model.streams[0].closed
    assert play.tally.outcome == "client_disconnect"
    assert play.kept == [("a", "partial")]
    assert play.released_before_end is not None


async def test_silence_is_filled_and_opens_the_stream() -> None:
    gate = asyncio.Event()
    play = Play(ScriptedModel([gate, [TextDelta("a"), STOP]]), keep_alive_s=0.05)
    running = asyncio.create_task(play.run())
    await until(lambda: play.client.keep_alives >= 1)
    assert play.client.opened
    gate.set()
    await running
    assert play.client.events.count(TurnStarted()) == 1


async def test_a_failure_after_a_keep_alive_is_an_event() -> None:
    gate = asyncio.Event()
    play = Play(ScriptedModel([gate, UpstreamError()]), keep_alive_s=0.05)
    running = asyncio.create_task(play.run())
    await until(lambda: play.client.opened)
    gate.set()
    await running
    assert play.client.refused is None
    assert isinstance(terminal(play), TurnFailed)


async def test_a_fault_of_the_program_still_ends_the_stream() -> None:
    class Broken(ScriptedModel):
        async def send(self, prompt: object, *, headers: object = ()) -> object:  # type: ignore[override]
            raise ZeroDivisionError

    play = await Play(Broken()).run()
    assert play.client.refused is not None
    assert play.client.refused.kind == "internal"


@pytest.mark.parametrize("step", [UpstreamError(), 30.0])
@pytest.mark.parametrize("opened", [True, False])
async def test_a_client_that_does_not_take_its_failure_is_given_up(
    step: GatewayError | float, opened: bool
) -> None:
    client = RecordingClient(stall_at_end=True)
    steps: list[Step] = [[TextDelta("a")], step] if opened else [step]
    model = ScriptedModel(steps, first_token_s=0.1, idle_s=0.1)
    play = await Play(model, client=client, send_s=0.1).run()
    assert play.tally.outcome in ("upstream_error", "upstream_timeout")
    assert client.ended == 0
    assert play.released_before_end
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]  # this is a task


async def test_a_fault_of_the_program_in_the_last_words_does_not_get_out() -> None:
    class Broken(RecordingClient):
        async def finish(self, events: object) -> None:
            raise ZeroDivisionError

    play = await Play(ScriptedModel([[TextDelta("a"), STOP]]), client=Broken()).run()
    assert play.tally.outcome == "internal"
    play = await Play(ScriptedModel([[TextDelta("a")], UpstreamError()]), client=Broken()).run()
    assert play.tally.outcome == "upstream_error"


@pytest.mark.parametrize("end", [STOP, None])
async def test_the_next_turn_waits_until_a_reply_is_stored_though_its_client_has_gone(
    end: ModelFinished | None,
) -> None:
    gate = asyncio.Event()
    events: list[ModelEvent] = [TextDelta("a"), *([end] if end else [])]
    play = Play(ScriptedModel([events, 30.0]), store_gate=gate)
    running = asyncio.create_task(play.run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.sleep(0.05)
    released_too_early = play.released_before_end is not None
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not released_too_early
    assert play.kept == [("a", "complete" if end else "partial")]
    assert play.released_before_end is not None
    assert play.tally.outcome == "client_disconnect"


@pytest.mark.parametrize(
    ("said", "told"), [("tool_calls", "tool_calls"), ("stop", "tool_calls"), ("length", "length")]
)
async def test_a_call_that_nobody_answers_here_is_passed_on(
    said: FinishReason, told: FinishReason
) -> None:
    call: list[ModelEvent] = [
        ToolCallStarted("c1", "lookup"),
        ToolCallDelta("c1", "{}"),
        ToolCallEnded("c1", "lookup", "{}"),
        ModelFinished(said, USAGE),
    ]
    play = await Play(ScriptedModel([call])).run()
    finished = terminal(play)
    assert isinstance(finished, TurnFinished)
    assert finished.reason == told
    assert play.client.events[1:4] == call[:3]


async def test_a_call_that_the_upstream_answered_itself_leaves_the_reason_alone() -> None:
    call: list[ModelEvent] = [
        ToolCallStarted("c1", "search"),
        ToolCallEnded("c1", "search", "{}"),
        ToolReturned("c1", "search", "{}", "[]", 0, "ok"),
        TextDelta("Found."),
        STOP,
    ]
    play = await Play(ScriptedModel([call])).run()
    finished = terminal(play)
    assert isinstance(finished, TurnFinished)
    assert finished.reason == "stop"
