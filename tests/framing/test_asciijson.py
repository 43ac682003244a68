import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.framing.asciijson import (
    PIECE_BYTES,
    RECORD_BYTES,
    SHORT_TEXT,
    clip,
    dumps,
    json_or_string,
    pieces,
    quote,
)

bounded = settings(max_examples=200, derandomize=True)


@bounded
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_quoted_text_is_ascii_on_one_line_and_reads_back(text: str) -> None:
    quoted = quote(text)
    assert quoted.isascii()
    assert len(quoted.splitlines()) == 1
    assert json.loads(quoted) == text


def test_short_text_always_fits_a_piece_and_a_piece_leaves_room_in_a_record() -> None:
    assert len(quote("\U0001f680" * SHORT_TEXT)) <= PIECE_BYTES < RECORD_BYTES


@pytest.mark.parametrize("char", ["a", '"', "é", "\U0001f680", "\0"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 20_000])
def test_pieces_fit_the_limit_and_join_to_the_text(char: str, count: int) -> None:
    found = pieces(char * count, 40)
    assert "".join(json.loads(piece) for piece in found) == char * count
    assert all(len(piece) <= 40 for piece in found)


def test_text_that_fits_stays_one_piece() -> None:
    assert pieces("a" * 38, 40) == ['"' + "a" * 38 + '"']


@bounded
@given(text=st.text(st.characters(exclude_categories=["Cs"])), limit=st.integers(20, 60))
def test_clipped_text_fits_and_begins_like_the_text(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    assert len(quote(clipped)) <= limit
    if clipped != text:
        assert clipped.endswith("…")
        assert text.startswith(clipped[:-1])
        assert len(quote(text)) > limit


def test_clipping_keeps_as_much_as_fits() -> None:
    assert clip("a" * 100, 20) == "a" * 12 + "…"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('{"a": [1, 2.5, null]}', '{"a":[1,2.5,null]}'),
        ("5", "5"),
        ('"said"', '"said"'),
        ("said", '"said"'),
        ("", '""'),
        ("{", '"{"'),
        ("NaN", '"NaN"'),
        ("1e999", '"1e999"'),
        ('{"a":\n"é"}', '{"a":"\\u00e9"}'),
        ('"\\ud800"', '"\\"\\\\ud800\\""'),
    ],
)
def test_text_is_embedded_as_json_if_it_is_json_and_else_as_a_string(
    text: str, written: str
) -> None:
    assert json_or_string(text) == written


@pytest.mark.parametrize("levels", [100, 900, 1020, 2000, 100_000])
def test_json_nested_beyond_reason_is_embedded_as_a_string(levels: int) -> None:
    text = "[" * levels + "]" * levels
    assert json_or_string(text) in (text, quote(text))
    assert levels != 100 or json_or_string(text) == text


def test_a_value_is_written_compact_and_in_ascii() -> None:
    assert dumps({"a": ["é", None, True]}) == '{"a":["\\u00e9",null,true]}'
