"""Conversations as JSON lines (https://jsonlines.org): one conversation with all its messages.

    {"tenant": "acme", "dialect": "widget", "id": "c-1", "public_id": "0123…", "owner": null,
     "subject": null, "created_at": "2026-11-22T08:00:00.000000Z", "updated_at": "…",
     "status": "open", "read": 2, "terms": {"agent": null, "variables": {}, "expires_at": null,
     "details": {}}, "messages": [{"id": "m-1", "role": "user", "text": "Hello",
     "created_at": "…", "status": "complete", "calls": [{"id": "…", "name": "…",
     "arguments": "{}", "result": null}]}]}

Written are all members. Read, only `dialect`, `id` and `messages` must be there, and in a message
`role` and `text`; `tenant` may be given for the whole file instead. A time is RFC 3339 text or a
number of seconds since the epoch. Without `updated_at` a conversation was last written to now.
Members that are not named here are refused, so that no misspelt one is lost. `owner` is who may
read a helper conversation; the others have none. A line is UTF-8, at most 64 MiB long, and as
strict as a request's body (`gateway/requests.py`).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, get_args

import orjson

from gateway.access.session_tokens import DIALECT as HELPER
from gateway.access.session_tokens import identity_named
from gateway.errors import BadRequest
from gateway.messages import (
    NO_TERMS,
    Conversation,
    ConversationKey,
    ConversationStatus,
    DialectName,
    KeptCall,
    Message,
    MessageStatus,
    Role,
    Terms,
)
from gateway.requests import CLIENT_ID, parse_json_object

LINE_BYTES: Final = 64 * 1024 * 1024

_PUBLIC_ID: Final = re.compile(r"[a-z0-9]{32}")
_TIMES: Final = ("created_at", "updated_at")
_KEY: Final = ("tenant", "dialect", "id", "public_id", "owner", "subject")
_WHOLE: Final = (*_KEY, *_TIMES, "status", "read", "terms", "messages")
_MESSAGE: Final = ("id", "role", "text", "created_at", "status", "calls")
_CALL: Final = ("id", "name", "arguments", "result")
_TERMS: Final = ("agent", "variables", "expires_at", "details")
# Until the year 9999, which is what the text of a time can say.
_LATEST: Final = 253_402_300_799.0


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a line need not say: the tenant, and the time it is now (epoch seconds)."""

    tenant: str | None
    now: float
    new_id: Callable[[], str]


class BadLine(Exception):
    """Everything that is wrong with one line, each naming the member."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def to_line(conversation: Conversation) -> bytes:
    """The line, its end included."""
    terms = conversation.terms
    return orjson.dumps(
        {
            **conversation.key._asdict(),
            "public_id": conversation.public_id,
            "owner": conversation.owner,
            "subject": conversation.subject,
            "created_at": time_text(conversation.created_at),
            "updated_at": time_text(conversation.updated_at),
            "status": conversation.status,
            "read": conversation.read,
            "terms": {
                "agent": terms.agent,
                "variables": dict(terms.variables),
                "expires_at": None if terms.expires_at is None else time_text(terms.expires_at),
                "details": dict(terms.details),
            },
            "messages": [_message_members(message) for message in conversation.messages],
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def from_line(line: bytes, defaults: Defaults) -> Conversation:
    """The conversation of a line. Raises `BadLine`."""
    if len(line) > LINE_BYTES:
        raise BadLine([f"the line is over {LINE_BYTES} bytes"])
    try:
        members = parse_json_object(line)
    except BadRequest as error:
        raise BadLine([_unreadable(error)]) from None
    reader = _Reader(members, "", defaults)
    conversation = _conversation(reader, defaults)
    if reader.problems:
        raise BadLine(reader.problems)
    return conversation


def _unreadable(error: BadRequest) -> str:
    text, cause = error.issues[0].issue, error.__cause__
    if isinstance(cause, orjson.JSONDecodeError):
        return f"{text}: {cause.msg} at byte {cause.pos}"
    return text


def time_text(seconds: float) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), _LATEST), UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _message_members(message: Message) -> dict[str, object]:
    return {
        "id": message.id,
        "role": message.role,
        "text": message.text,
        "created_at": time_text(message.created_at),
        "status": message.status,
        "calls": [call._asdict() for call in message.calls],
    }


class _Reader:
    """The members of one object; notes what is wrong and goes on with something harmless."""

    def __init__(
        self,
        members: Mapping[str, object],
        path: str,
        defaults: Defaults,
        problems: list[str] | None = None,
    ) -> None:
        self.problems: list[str] = [] if problems is None else problems
        self.defaults = defaults
        self._members = members
        self._path = path

    def only(self, known: tuple[str, ...]) -> None:
        for name in self._members:
            if name not in known:
                self.fault(name, "is not a member of this format")

    def fault(self, name: str, text: str) -> None:
        self.problems.append(f"{self._path}{name} {text}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self._members.get(name)
        if value is None:
            if default is None:
                self.fault(name, "is missing")
            return default or ""
        return self._str(name, value)

    def optional(self, name: str) -> str | None:
        value = self._members.get(name)
        return None if value is None else self._str(name, value)

    def _str(self, name: str, value: object) -> str:
        if isinstance(value, str):
            return value
        self.fault(name, "is not text")
        return ""

    def one_of(self, name: str, words: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(name, default)
        if value in words:
            return value
        if value:
            self.fault(name, f"is not one of {', '.join(words)}")
        return words[0]

    def number(self, name: str, default: int) -> int:
        value = self._members.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.fault(name, "is not a count")
            return default
        return value

    def time(self, name: str, default: float | None) -> float | None:
        value = self._members.get(name)
        if value is None:
            return default
        seconds = _seconds(value)
        if seconds is None:
            self.fault(name, "is not a time: RFC 3339, or seconds since the epoch")
        return seconds

    def objects(self, name: str, *, needed: bool = False) -> list["_Reader"]:
        value = self._members.get(name)
        if value is None and not needed:
            return []
        if not isinstance(value, list):
            self.fault(name, "is missing" if value is None else "is not a list")
            return []
        readers = []
        for place, entry in enumerate(value):
            path = f"{self._path}{name}[{place}]"
            if isinstance(entry, dict):
                readers.append(_Reader(entry, f"{path}.", self.defaults, self.problems))
            else:
                self.problems.append(f"{path} is not an object")
        return readers

    def mapping(self, name: str) -> dict[str, object]:
        value = self._members.get(name)
        if value is not None and not isinstance(value, dict):
            self.fault(name, "is not an object")
        return dict(value) if isinstance(value, dict) else {}

    def inside(self, name: str) -> "_Reader":
        members = self.mapping(name)
        return _Reader(members, f"{self._path}{name}.", self.defaults, self.problems)


def _conversation(reader: _Reader, defaults: Defaults) -> Conversation:
    reader.only(_WHOLE)
    key = ConversationKey(
        reader.text("tenant", defaults.tenant),
        reader.one_of("dialect", get_args(DialectName)),
        reader.text("id"),
    )
    if key.id and not CLIENT_ID.fullmatch(key.id):
        reader.fault("id", f"does not match {CLIENT_ID.pattern}")
    public_id = reader.text("public_id", defaults.new_id())
    if not _PUBLIC_ID.fullmatch(public_id):
        reader.fault("public_id", f"does not match {_PUBLIC_ID.pattern}")
    updated_at = reader.time("updated_at", defaults.now) or 0.0
    created_at = reader.time("created_at", min(updated_at, defaults.now)) or 0.0
    if updated_at > defaults.now:
        reader.fault("updated_at", "is in the future")
    messages = tuple(
        _message(entry, created_at) for entry in reader.objects("messages", needed=True)
    )
    status: ConversationStatus = reader.one_of(  # type: ignore[assignment]  # checked against it
        "status", get_args(ConversationStatus), "open"
    )
    return Conversation(
        key,
        public_id,
        _owner(reader, key.dialect),
        created_at,
        messages,
        reader.optional("subject"),
        updated_at,
        len(messages),
        min(reader.number("read", len(messages)), len(messages)),
        status,
        _terms(reader.inside("terms")),
    )


def _owner(reader: _Reader, dialect: str) -> str | None:
    said = reader.optional("owner")
    if dialect != HELPER:
        if said:
            reader.fault("owner", f"is not known on {dialect}")
        return None
    identity = identity_named(said or "")
    if identity is None:
        reader.fault("owner", "is not email:<address> or anonymous:<UUID>: nobody could read it")
    return identity


def _message(reader: _Reader, created_at: float) -> Message:
    reader.only(_MESSAGE)
    role: Role = reader.one_of("role", get_args(Role))  # type: ignore[assignment]  # checked
    status: MessageStatus = reader.one_of(  # type: ignore[assignment]  # checked against it
        "status", get_args(MessageStatus), "complete"
    )
    calls = []
    for call in reader.objects("calls"):
        call.only(_CALL)
        arguments, result = call.text("arguments", "{}"), call.optional("result")
        calls.append(KeptCall(call.text("id"), call.text("name"), arguments, result))
    return Message(
        reader.text("id", reader.defaults.new_id()),
        role,
        reader.text("text"),
        reader.time("created_at", created_at) or 0.0,
        status,
        tuple(calls),
    )


def _terms(reader: _Reader) -> Terms:
    reader.only(_TERMS)
    variables = reader.mapping("variables")
    for name, value in variables.items():
        if not isinstance(value, str):
            reader.fault(f"variables.{name}", "is not text")
    terms = Terms(
        reader.optional("agent"),
        {name: value for name, value in variables.items() if isinstance(value, str)},
        reader.time("expires_at", None),
        reader.mapping("details"),
    )
    return NO_TERMS if terms == NO_TERMS else terms


def _seconds(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        if moment.tzinfo is None:
            return None
        seconds = moment.timestamp()
    else:
        return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _LATEST else None
