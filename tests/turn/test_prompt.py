from dataclasses import replace

import pytest

from gateway.messages import KeptCall, Message, PromptMessage
from gateway.turn.prompt import (
    estimate_tokens,
    exchanges,
    fill,
    fit,
    gone_on_with,
)


def said(role: str, text: str) -> Message:
    assert role in ("user", "assistant")
    return Message(f"{role}-{text}", role, text, 0.0)  # type: ignore[arg-type]  # checked above


def called(text: str, *calls: KeptCall) -> Message:
    return replace(said("assistant", text), calls=calls)


LOOK = KeptCall("call-1", "look", '{"id":7}')
NOW = KeptCall("call-2", "now", "{}")
DONE = KeptCall("call-3", "web_search", "{}", "run by the model's server")
NEWEST = PromptMessage("user", "now")


def test_the_estimate_is_a_quarter_of_the_bytes_rounded_up() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "abcd", "abcde", "日本")] == [0, 1, 1, 2, 2]


def test_history_becomes_whole_exchanges() -> None:
    history = [said("user", "q"), said("assistant", "a"), said("user", "r"), said("assistant", "b")]
    past = exchanges(history, refusal="no")
    assert [[message.text for message in exchange] for exchange in past] == [["q", "a"], ["r", "b"]]


def test_a_reply_without_its_question_is_left_out() -> None:
    history = [said("assistant", "a"), said("user", "r"), said("assistant", "b")]
    assert [exchange[0].text for exchange in exchanges(history, refusal="no")] == ["r"]


def test_an_empty_reply_stands_as_the_refusal() -> None:
    past = exchanges([said("user", "q"), said("assistant", " ")], refusal="no")
    assert past == [(PromptMessage("user", "q"), PromptMessage("assistant", "no"))]


def test_several_replies_to_one_message_are_told_as_one() -> None:
    replies = [said("assistant", text) for text in ("Let me look.", "", "It is sunny.")]
    ((_, told),) = exchanges([said("user", "q"), *replies], refusal="no")
    assert told == PromptMessage("assistant", "Let me look.\n\nIt is sunny.")


def test_results_go_to_the_calls_that_the_newest_reply_left_open() -> None:
    history = [said("user", "q"), called("Let me look.", LOOK, NOW, DONE)]
    results = {"call-1": "sent", "call-3": "forged", "call-9": "unasked"}
    told, calls = gone_on_with(history, results)
    assert calls == (LOOK._replace(result="sent"),)
    assert told == (
        PromptMessage("user", "q"),
        PromptMessage("assistant", "Let me look.", calls),
    )
    assert gone_on_with(history, {"call-9": "unasked"}) == ((), ())
    assert gone_on_with([*history, said("user", "well?")], results) == ((), ())
    assert gone_on_with(history[1:], results) == ((), ())
    assert gone_on_with([], results) == ((), ())


def test_each_reply_of_the_newest_exchange_is_told_with_the_results_that_came_after_it() -> None:
    sent = LOOK._replace(result="sent")  # a server without ids of its own repeats them
    history = [
        *(said("user", "old"), said("assistant", "older")),
        *(said("user", "q"), called("Let me look.", LOOK, NOW, DONE), called("", sent, LOOK)),
    ]
    again = LOOK._replace(result="delivered")
    told, calls = gone_on_with(history, {"call-1": "delivered"})
    assert calls == (again,)
    assert told == (
        PromptMessage("user", "q"),
        PromptMessage("assistant", "Let me look.", (sent,)),
        PromptMessage("assistant", "", (again,)),
    )


def test_calls_and_results_count_towards_the_budget() -> None:
    past = [(PromptMessage("user", "q"), PromptMessage("assistant", "a"))]
    newest = [NEWEST, PromptMessage("assistant", "", (LOOK._replace(result="x" * 400),))]
    assert fit("", past, newest, budget=200) == past
    assert fit("", past, newest, budget=130) == []


def test_without_a_budget_everything_goes() -> None:
    past = exchanges([said("user", "q"), said("assistant", "a")], refusal="no")
    assert fit("s", past, [NEWEST], budget=None) == past


def test_the_oldest_exchanges_are_dropped_whole() -> None:
    past = [
        (PromptMessage("user", f"q{n}" * 20), PromptMessage("assistant", f"a{n}" * 20))
        for n in range(10)
    ]
    kept = fit("system", past, [NEWEST], budget=150)
    assert 1 <= len(kept) < 10
    assert kept == past[-len(kept) :]
    told = [NEWEST, *(message for exchange in kept for message in exchange)]
    assert sum(estimate_tokens(message.text) for message in told) <= 150


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("Hi {{name}}.", "Hi Größe."),
        ("{{ name }}{{name}}", "GrößeGröße"),
        ("{{other}} {{}} {name} {{ {{name}}", "{{other}} {{}} {name} {{ Größe"),
        ("{{recursive}}", "{{name}}"),
        ("{{empty}}|{{order.id-7}}|{{backslash}}", "|42|\\1"),
        ("{{a b}}", "{{a b}}"),
        ("", ""),
    ],
)
def test_a_prompts_blanks_are_filled_once(template: str, filled: str) -> None:
    values = {
        "name": "Größe",
        "recursive": "{{name}}",
        "empty": "",
        "order.id-7": "42",
        "backslash": "\\1",
        "a b": "never",
    }
    assert fill(template, values) == filled
