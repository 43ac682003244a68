import pytest

from gateway.messages import Message, PromptMessage
from gateway.turn.prompt import estimate_tokens, exchanges, fill, fit


def said(role: str, text: str) -> Message:
    assert role in ("user", "assistant")
    return Message(f"{role}-{text}", role, text, 0.0)  # type: ignore[arg-type]  # checked above


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


def test_without_a_budget_everything_goes() -> None:
    past = exchanges([said("user", "q"), said("assistant", "a")], refusal="no")
    assert [message.text for message in fit("s", past, NEWEST, budget=None)] == ["q", "a", "now"]


def test_the_oldest_exchanges_are_dropped_whole() -> None:
    past = [
        (PromptMessage("user", f"q{n}" * 20), PromptMessage("assistant", f"a{n}" * 20))
        for n in range(10)
    ]
    kept = fit("system", past, NEWEST, budget=150)
    assert kept[-1] is NEWEST
    assert len(kept) % 2 == 1
    assert 3 <= len(kept) < 21
    assert kept[0] == past[-(len(kept) // 2)][0]
    assert sum(estimate_tokens(message.text) for message in kept) <= 150


def test_the_newest_message_goes_even_if_it_does_not_fit() -> None:
    long = PromptMessage("user", "x" * 10_000)
    assert fit("", [], long, budget=10) == (long,)


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
