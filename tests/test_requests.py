import pytest

from gateway.errors import BadRequest, FieldIssue, HttpError, NotFound
from gateway.messages import Headers, RequestHead
from gateway.requests import (
    MAX_DEPTH,
    media_type,
    parse_json_object,
    path_id,
    require_media_type,
    text_member,
)
from tests.heads import bare_head, request_head


def nested(levels: int) -> bytes:
    """An object with that many levels, itself counted."""
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "issue"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'\xef\xbb\xbf{"a":1}', "is not JSON"),
        (b'{"a":1} x', "is not JSON"),
        (b'{"a":1}{"a":1}', "is not JSON"),
        (b'{"a":NaN}', "is not JSON"),
        (b"{'a':1}", "is not JSON"),
        (b'{"a":"\xff"}', "is not JSON"),
        (b'{"a":"\xed\xa0\x80"}', "is not JSON"),
        (b'{"a":"\\ud83d"}', "is not JSON"),
        (b'{"a":"\\ude00\\ud83d"}', "is not JSON"),
        ('{"a":1}'.encode("utf-16"), "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b'"a"', "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (nested(MAX_DEPTH + 1), "is nested deeper than 32 levels"),
        (nested(900), "is nested deeper than 32 levels"),
        (b'{"a":1,"b":2,"a":1}', "names a member twice"),
        (b'{"b":[{"a":1,"\\u0061":2}]}', "names a member twice"),
    ],
)
def test_a_body_that_may_mean_two_things_is_refused(body: bytes, issue: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_json_object(body)
    assert caught.value.issues == (FieldIssue("body", issue),)


@pytest.mark.parametrize(
    ("body", "members"),
    [
        (b" {} \n", {}),
        (b'{"a":"\\ud83d\\ude80"}', {"a": "\U0001f680"}),
        ('{"a":"é"}'.encode(), {"a": "é"}),
        (b'{"a":{"x":1},"b":{"x":1}}', {"a": {"x": 1}, "b": {"x": 1}}),
    ],
)
def test_a_plain_body_gives_its_members(body: bytes, members: dict[str, object]) -> None:
    assert parse_json_object(body) == members


def test_a_number_of_any_length_is_no_fault_of_ours() -> None:
    assert parse_json_object(b'{"a":' + b"9" * 300 + b"}") == {"a": 1e300}
    with pytest.raises(BadRequest):
        parse_json_object(b'{"a":' + b"9" * 5000 + b"}")


def test_thirty_two_levels_are_deep_enough() -> None:
    assert "a" in parse_json_object(nested(MAX_DEPTH))


@pytest.mark.parametrize(
    ("members", "issue"),
    [
        ({}, "is required"),
        ({"text": None}, "is required"),
        ({"text": 5}, "must be a string"),
        ({"text": ["a"]}, "must be a string"),
        ({"text": "a\0b"}, "must not hold the character U+0000"),
    ],
)
def test_a_member_that_is_no_text_is_refused_by_its_name(
    members: dict[str, object], issue: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        text_member(members, "text", "message.text")
    assert caught.value.issues == (FieldIssue("message.text", issue),)


def test_a_text_comes_back_untouched() -> None:
    assert text_member({"text": " \u2028 "}, "text") == " \u2028 "


@pytest.mark.parametrize(
    ("value", "essence"),
    [
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ('application/json;charset="UTF-8"', "application/json"),
        ("application/json ; odata=verbose ; Charset=utf8", "application/json"),
        ("application/*+json", "application/*+json"),
        ("", ""),
    ],
)
def test_a_media_type_loses_its_parameters(value: str, essence: str) -> None:
    assert media_type(request_head("/", ("content-type", value))) == essence


@pytest.mark.parametrize(
    "fields",
    [
        (("content-type", "application/json; charset=latin-1"),),
        (("content-type", 'application/json; charset="utf-16"'),),
        (("content-type", "application/json; a=b; charset=utf-16"),),
        (("content-type", "application/json"), ("content-type", "application/json")),
    ],
)
def test_another_charset_or_a_second_type_is_unsupported(
    fields: tuple[tuple[str, str], ...],
) -> None:
    with pytest.raises(HttpError) as caught:
        media_type(request_head("/", *fields))
    assert caught.value.http_status == 415


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "identity, br", "x-unheard-of"])
def test_a_body_in_a_content_coding_is_unsupported(coding: str) -> None:
    with pytest.raises(HttpError) as caught:
        media_type(request_head("/", ("content-encoding", coding)))
    assert caught.value.http_status == 415
    assert caught.value.headers == {"accept-encoding": "identity"}


@pytest.mark.parametrize("coding", ["", "identity", " Identity "])
def test_the_identity_is_no_content_coding(coding: str) -> None:
    require_media_type(request_head("/", ("content-encoding", coding)), "application/json".__eq__)


def test_a_type_that_is_not_accepted_is_unsupported_and_so_is_none() -> None:
    require_media_type(request_head("/"), "application/json".__eq__)
    for head in (bare_head("/"), request_head("/", ("content-type", "text/plain"))):
        with pytest.raises(HttpError) as caught:
            require_media_type(head, "application/json".__eq__)
        assert caught.value.http_status == 415


@pytest.mark.parametrize("value", ["a", "A-Za.z0:9_-", "x" * 128])
def test_an_id_of_the_documented_characters_is_taken(value: str) -> None:
    assert path_id(RequestHead("POST", "/", "", Headers(), {"id": value})) == value


@pytest.mark.parametrize("value", ["", "x" * 129, "a/b", "a b", "a\n", "é", "\u0661", "a\0"])
def test_any_other_id_is_not_found(value: str) -> None:
    with pytest.raises(NotFound):
        path_id(RequestHead("POST", "/", "", Headers(), {"id": value}))
