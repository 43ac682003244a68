import asyncio

import pytest

from gateway.errors import (
    ConnectTimeout,
    ContentFiltered,
    ContextLength,
    GatewayError,
    Truncated,
    UpstreamDenied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.events import ModelFinished, ReasoningDelta, TextDelta, TurnFailed, TurnStarted
from gateway.messages import PromptMessage, Usage
from tests.turn.playbook import Play, ScriptedModel, Step

USAGE = Usage(3, 2)
STOP = ModelFinished("stop", USAGE)
GOOD: list[Step] = [[TextDelta("b"), STOP]]
ELSEWHERE = [
    UpstreamUnavailable(),
    UpstreamRateLimited(),
    UpstreamError(),
    UpstreamDenied(),
    UpstreamProtocolError(),
    ConnectTimeout(),
    Truncated(),
]


def texts(play: Play) -> list[str]:
    return [event.text for event in play.client.events if isinstance(event, TextDelta)]


def by_type(error: GatewayError) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", ELSEWHERE, ids=by_type)
@pytest.mark.parametrize("late", [False, True], ids=["refused", "broke-off"])
async def test_another_try_and_another_model_are_unseen_before_the_first_token(
    error: GatewayError, late: bool
) -> None:
    failing: list[Step] | GatewayError = [[], error] if late else error
    first = ScriptedModel(failing, failing, retries=1)
    second = ScriptedModel(failing, GOOD, name="second", retries=1)
    play = await Play(first, second).run()
    assert texts(play) == ["b"]
    assert play.client.events.count(TurnStarted("m")) == 1
    assert play.tally.outcome == "ok"
    assert [entry.upstream for entry in play.tally.rounds] == ["main", "main", "second", "second"]
    assert [entry.error for entry in play.tally.rounds] == [error.kind] * 3 + [None]
    assert [entry.why for entry in play.tally.rounds] == [str(error)] * 3 + [""]
    assert play.tally.fallbacks == ["main"]
    assert play.tally.usage == USAGE
    assert first.ends == [error, error]
    assert second.ends == [error, None]
    assert second.began_calls == 1
    assert (first.places, second.places) == ([False], [True])


@pytest.mark.parametrize(
    "error", [UpstreamRejected(), ContextLength(), ContentFiltered()], ids=by_type
)
async def test_what_the_request_is_to_blame_for_is_not_tried_elsewhere(error: GatewayError) -> None:
    first, second = ScriptedModel(error, retries=1), ScriptedModel(GOOD)
    play = await Play(first, second).run()
    assert play.client.refused is error
    assert play.tally.why == str(error)
    assert second.prompts == []


@pytest.mark.parametrize("word", [TextDelta("a"), ReasoningDelta("a")], ids=by_type)
async def test_nothing_is_tried_again_after_the_first_token(
    word: TextDelta | ReasoningDelta,
) -> None:
    first = ScriptedModel([[word], UpstreamUnavailable()], retries=1)
    second = ScriptedModel(GOOD)
    play = await Play(first, second).run()
    assert isinstance(play.client.events[-1], TurnFailed)
    assert (len(first.prompts), second.prompts) == (1, [])
    assert [type(error) for error in first.ends] == [UpstreamUnavailable]


async def test_nothing_is_tried_again_after_a_slow_failure() -> None:
    first = ScriptedModel([0.2, UpstreamUnavailable()], retries=1)
    second = ScriptedModel(GOOD)
    play = await Play(first, second, retry_within_s=0.05).run()
    assert isinstance(play.client.refused, UpstreamUnavailable)
    assert (len(first.prompts), second.prompts, play.tally.fallbacks) == (1, [], [])


async def test_a_quick_clock_of_a_call_lets_another_one_follow() -> None:
    first = ScriptedModel([30.0], first_token_s=0.1)
    play = await Play(first, ScriptedModel(GOOD, name="second")).run()
    assert texts(play) == ["b"]
    assert play.tally.outcome == "ok"
    assert first.streams[0].closed
    assert [type(error).__name__ for error in first.ends] == ["FirstTokenTimeout"]
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr]  # this is a task


async def test_a_long_silence_before_the_first_token_is_not_idleness() -> None:
    role: list[Step] = [[], 0.4, *GOOD]
    play = await Play(ScriptedModel(role, idle_s=0.1)).run()
    assert (texts(play), play.tally.outcome) == (["b"], "ok")


async def test_a_turn_that_runs_out_of_time_tries_nothing_more() -> None:
    first, second = ScriptedModel([30.0]), ScriptedModel(GOOD)
    play = await Play(first, second, turn_s=0.1).run()
    assert play.tally.outcome == "deadline"
    assert second.prompts == []
    assert [error.kind for error in first.ends if error] == ["deadline"]


async def test_a_client_that_goes_away_blames_nobody() -> None:
    for steps in ([30.0], [[TextDelta("a")], 30.0]):
        first, second = ScriptedModel(steps), ScriptedModel(GOOD)  # type: ignore[arg-type]  # steps
        running = asyncio.create_task(Play(first, second).run())
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [error.kind for error in first.ends if error] == ["cancelled"]
        assert second.prompts == []


async def test_an_upstream_without_a_place_is_passed_over() -> None:
    first, second = ScriptedModel(full=True), ScriptedModel(GOOD, name="second")
    play = await Play(first, second).run()
    assert texts(play) == ["b"]
    assert [entry.upstream for entry in play.tally.rounds] == ["second"]
    assert play.tally.fallbacks == ["main"]


async def test_without_any_place_the_turn_is_refused_with_a_time_to_wait() -> None:
    play = await Play(ScriptedModel(full=True)).run()
    assert play.client.refused is not None
    assert (play.client.refused.kind, play.client.refused.retry_after) == (
        "upstream_unavailable",
        1,
    )
    assert play.tally.rounds == []


async def test_a_shorter_prompt_has_tries_of_its_own() -> None:
    past = [(PromptMessage("user", f"q{n}"), PromptMessage("assistant", f"a{n}")) for n in range(4)]
    model = ScriptedModel(UpstreamError(), ContextLength(), UpstreamError(), GOOD, retries=2)
    play = await Play(model, past=past).run()
    assert [len(prompt.messages) for prompt in model.prompts] == [9, 9, 3, 3]
    assert texts(play) == ["b"]


async def test_a_prompt_is_shortened_from_what_was_sent() -> None:
    past = [(PromptMessage("user", "q" * 400), PromptMessage("assistant", "a"))] * 30
    model = ScriptedModel(ContextLength(), GOOD, context_tokens=500)
    await Play(model, past=past).run()
    assert [len(prompt.messages) for prompt in model.prompts] == [9, 3]


async def test_the_newest_message_goes_even_if_it_does_not_fit() -> None:
    past = [(PromptMessage("user", "q"), PromptMessage("assistant", "a"))]
    model = ScriptedModel(GOOD, context_tokens=10)
    await Play(model, past=past, text="x" * 1000).run()
    assert [message.text for message in model.prompts[0].messages] == ["x" * 1000]
