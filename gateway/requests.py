"""Reading the JSON bodies of requests, with one strictness for all dialects.

RFC 8259, and beyond it: no byte order mark, no repeated member name (section 4 leaves their
meaning open), at most 32 levels of nesting, no lone surrogate anywhere, and no U+0000 in a text
that is used. Members that nobody asked for are ignored. The caller has bounded the body's size.
"""

import re
from collections.abc import Callable
from json import JSONDecoder
from typing import Final
from urllib.parse import parse_qsl

import orjson

from gateway.errors import BadRequest, FieldIssue, HttpError, NotFound
from gateway.messages import RequestHead

MAX_DEPTH: Final = 32

CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""An id that a client may have made itself: the pattern of the widget's document, for all."""

_ANY_JSON: Final = re.compile(r"application/json|text/json|application/[^\s/;]+\+json")
_UTF8_NAMES: Final = ("utf-8", "utf8")
_PARAMETER: Final = re.compile(r';\s*([^=;\s]+)\s*=\s*("[^"]*"|[^;\s]*)\s*')


def parse_json_object(body: bytes) -> dict[str, object]:
    """The members of the object that the body is. Raises `BadRequest`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _bad_body("is not JSON") from error
    if not isinstance(value, dict):
        raise _bad_body("is not a JSON object")
    if _too_deep(value):
        raise _bad_body(f"is nested deeper than {MAX_DEPTH} levels")
    _REPEATS.decode(body.decode())
    return value


def text_member(members: dict[str, object], name: str, field: str = "") -> str:
    """The member as text, unchanged; `field` is its name in the error, if another one.

    Raises `BadRequest` if it is missing, no string, or holds U+0000.
    """
    value = members.get(name)
    field = field or name
    if value is None:
        raise bad_field(field, "is required")
    if not isinstance(value, str):
        raise bad_field(field, "must be a string")
    if "\0" in value:
        raise bad_field(field, "must not hold the character U+0000")
    return value


def bounded_text(members: dict[str, object], name: str, longest: int) -> str:
    """As `text_member`, of 1 to `longest` characters. Raises `BadRequest`."""
    value = text_member(members, name)
    if not 1 <= len(value) <= longest:
        raise bad_field(name, f"must have 1 to {longest} characters")
    return value


def optional_text(members: dict[str, object], name: str, longest: int | None = None) -> str | None:
    """As `text_member`, None for a member that is missing or null.

    Raises `BadRequest`, also for more than `longest` characters.
    """
    if members.get(name) is None:
        return None
    value = text_member(members, name)
    if longest is not None and len(value) > longest:
        raise bad_field(name, f"must have at most {longest} characters")
    return value


def query_value(head: RequestHead, name: str) -> str | None:
    """The query's parameter, decoded; None if it is not there. Raises `BadRequest` for two."""
    fields = parse_qsl(head.query, keep_blank_values=True)
    values = [value for key, value in fields if key == name]
    if len(values) > 1:
        raise bad_field(name, "is given more than once")
    return values[0] if values else None


def path_id(head: RequestHead) -> str:
    """The route's `{id}`. Raises `NotFound` for what can be no conversation's id."""
    value = head.params["id"]
    if CLIENT_ID.fullmatch(value) is None:
        raise NotFound("the id is malformed")
    return value


def bad_field(field: str, issue: str) -> BadRequest:
    """The error that says what is wrong with one member; neither text may quote its value."""
    return BadRequest(f"{field} {issue}", issues=(FieldIssue(field, issue),))


def media_type(head: RequestHead) -> str:
    """The body's media type in lower case, "" if it is missing.

    Raises `HttpError` 415 for a charset other than UTF-8, for more than one content type and for
    a body in a content coding (RFC 9110, section 8.4).
    """
    if any(name.strip().lower() not in ("", "identity") for name in _codings(head)):
        raise HttpError(415, "the body has a content coding", {"accept-encoding": "identity"})
    values = head.headers.all("content-type")
    if not values:
        return ""
    if len(values) > 1:
        raise HttpError(415, "more than one content type")
    essence, semicolon, parameters = values[0].partition(";")
    for name, value in _PARAMETER.findall(semicolon + parameters):
        if name.lower() == "charset" and value.strip('"').lower() not in _UTF8_NAMES:
            raise HttpError(415, "the charset is not utf-8")
    return essence.strip().lower()


def _codings(head: RequestHead) -> list[str]:
    return ",".join(head.headers.all("content-encoding")).split(",")


def require_media_type(head: RequestHead, accepts: Callable[[str], bool]) -> None:
    """Raises `HttpError` 415 unless `accepts` says yes to the body's media type."""
    if not accepts(media_type(head)):
        raise HttpError(415, "the content type is not JSON")


def is_json(media_type: str) -> bool:
    """Whether a media type is JSON's own."""
    return media_type == "application/json"


def is_any_json(media_type: str) -> bool:
    """Whether a media type is JSON's own, `text/json`, or one that says `+json`."""
    return _ANY_JSON.fullmatch(media_type) is not None


def _bad_body(issue: str) -> BadRequest:
    return bad_field("body", issue)


def _too_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, (dict, list))
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, (dict, list)) for item in level)


def _refuse_repeats(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _bad_body("names a member twice")


def _ignore(_: str) -> None:
    return None


# orjson keeps the last of two members with one name and cannot be told otherwise.
_REPEATS: Final = JSONDecoder(
    object_pairs_hook=_refuse_repeats, parse_int=_ignore, parse_float=_ignore
)
