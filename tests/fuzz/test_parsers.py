import contextlib
import importlib
import json

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.conversations.lines import BadLine, Defaults, from_line, to_line
from gateway.errors import BadRequest
from gateway.messages import Headers, Principal
from gateway.readers import Broken
from gateway.serving.http1_head import Refused, head_end, read_head
from gateway.turn.idempotency import once_of
from gateway.upstreams.faults import error_member, retry_after
from tests.e2e.routes import ALL, Chat
from tests.fuzz.inputs import json_values

_latin = st.text(st.characters(max_codepoint=0xFF), max_size=40)
_tokens = st.sampled_from(["GET", "POST", "CONNECT", "*", "/chat", "http://o/", "HTTP/1.1"])
_lines = st.one_of(
    st.sampled_from(["GET /chat HTTP/1.1", "OPTIONS * HTTP/1.1", "POST http://h/x HTTP/1.0"]),
    st.lists(st.one_of(_tokens, _latin), max_size=4).map(" ".join),
)
_fields = st.sampled_from(
    [
        *("Host: h", "host:o", "Host : h", "Content-Length: 5", "content-length: +5", "X: y"),
        *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip", " folded", "Upgrade: h2c"),
    ]
)
_heads = st.builds(
    lambda line, host, fields, end: "\r\n".join((line, *host, *fields)).encode("latin-1") + end,
    _lines,
    st.sampled_from([["Host: h"], []]),
    st.lists(st.one_of(_fields, _latin), max_size=4),
    st.sampled_from([b"\r\n\r\n", b"\r\n\r\nrest", b"\n\n", b"\r\n", b""]),
)


@given(st.one_of(_heads, st.binary(max_size=200)))
def test_a_head_is_incomplete_refused_or_read_as_another_parser_does(data: bytes) -> None:
    try:
        end = head_end(bytearray(data), 0)
        if end < 0:
            return
        target = read_head(data[:end]).target
    except Refused:
        return
    assert target.startswith(b"/") or target == b"*"
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data[:end])
    with contextlib.suppress(h11.RemoteProtocolError):  # what is left to it
        event = connection.next_event()
        assert isinstance(event, h11.Request)
        assert event.target.endswith(target) or target == b"/"
        names = [name for name, _ in event.headers]
        assert not {b"content-length", b"transfer-encoding"} <= set(names)
        assert max((names.count(name) for name in (b"host", b"content-length")), default=0) <= 1


_members = st.dictionaries(
    st.sampled_from(
        [
            *("tenant", "dialect", "id", "public_id", "owner", "subject", "created_at", "status"),
            *("updated_at", "read", "terms", "messages", "role", "text", "calls", "x"),
        ]
    ),
    st.one_of(json_values, st.sampled_from(["widget", "helper", "user", "open", "complete"])),
)


@given(
    st.one_of(
        st.binary(max_size=200),
        _members.map(lambda members: json.dumps(members).encode()),
        st.builds(
            lambda members, messages: json.dumps(
                {"dialect": "widget", "id": "c", **members, "messages": messages}
            ).encode(),
            _members,
            st.lists(_members.map(lambda it: {"role": "user", "text": "Hi", **it}), max_size=2),
        ),
    )
)
def test_an_imported_line_is_a_conversation_that_is_exported_alike_or_refused(line: bytes) -> None:
    defaults = Defaults("acme", 1_800_000_000.0, lambda: "m-1")
    try:
        conversation = from_line(line, defaults)
    except BadLine:
        return
    assert from_line(to_line(conversation), defaults) == conversation


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), _latin))
@example({"retry-after": "Sun, 22 Nov 2026 08:00:00 GMT", "date": "Sun, 22 Nov 2026 08:00:00"})
def test_a_wait_that_a_server_asks_for_is_short_or_none(fields: dict[str, str]) -> None:
    wait = retry_after(Headers(tuple(fields.items())))
    assert wait is None or 0 <= wait <= 10


@given(st.one_of(st.binary(max_size=100), json_values.map(lambda it: json.dumps(it).encode())))
def test_what_a_server_says_of_its_fault_can_be_anything(body: bytes) -> None:
    error_member(body)


@given(st.lists(_latin, max_size=2), st.binary(max_size=20))
def test_an_idempotency_key_is_none_good_or_refused(keys: list[str], body: bytes) -> None:
    headers = Headers(tuple(("idempotency-key", key) for key in keys))
    try:
        once = once_of(
            headers, Principal("acme", "site", "default"), route="r", path="/", body=body
        )
    except BadRequest:
        return
    assert (once is None) == (not keys)


@given(st.sampled_from(ALL), st.lists(st.binary(max_size=60), max_size=4))
def test_a_reader_says_what_is_broken(chat: Chat, parts: list[bytes]) -> None:
    reader = importlib.import_module(f"gateway.readers.{chat.dialect}").READERS[chat.framing]()
    with contextlib.suppress(Broken):
        for part in parts:
            reader.feed(part)
        reader.close()
