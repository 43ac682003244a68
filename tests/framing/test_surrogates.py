import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.framing.surrogates import SurrogateJoiner, clean

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def join(*pieces: str) -> str:
    joiner = SurrogateJoiner()
    return "".join([joiner.feed(piece) for piece in pieces]) + joiner.close()


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("a", "b"), "ab"),
        (("a\ud83d", "\ude00b"), "a\U0001f600b"),
        (("\ud83d\ude00",), "\U0001f600"),
        (("\ud83d", "", "\ude00"), "\U0001f600"),
        (("a\ud83d", "b"), "a\ufffdb"),
        (("a\ud83d",), "a\ufffd"),
        (("\ude00",), "\ufffd"),
        (("\ude00\ud83d", "\ude00"), "\ufffd\U0001f600"),
        (("\ud83d", "\ud83d", "\ude00"), "\ufffd\U0001f600"),
        (("a\0b",), "a\ufffdb"),
        (("\0",), "\ufffd"),
    ],
)
def test_halves_are_joined_and_lone_ones_replaced(pieces: tuple[str, ...], text: str) -> None:
    assert join(*pieces) == text


@given(st.lists(ANY_TEXT))
def test_pieces_give_what_the_whole_gives(pieces: list[str]) -> None:
    text = join(*pieces)
    assert text == clean("".join(pieces))
    text.encode()
    assert "\0" not in text


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_good_text_is_left_alone(text: str) -> None:
    assert clean(text) == text == join(*text)


def test_a_character_is_not_held_back_once_it_is_whole() -> None:
    joiner = SurrogateJoiner()
    assert joiner.feed("\U0001f600") == "\U0001f600"
    assert joiner.held == ""
    assert joiner.feed("x\ud83d") == "x"
    assert joiner.held == "\ud83d"
