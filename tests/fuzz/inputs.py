"""What strangers may send: no structure at all, JSON of any shape, and good input gone wrong."""

import json
from collections.abc import Mapping
from typing import Final

from hypothesis import strategies as st

from gateway.messages import Headers, RequestHead
from tests.e2e.routes import ALL, Chat

CONVERSATION: Final = "c-1"

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["", "user", "assistant", "system", "\x00", "\ud800", "a" * 8001, "𝕏" * 4001]),
)
_KNOWN: Final = (
    *("text", "message", "sessionId", "conversationSlug", "id", "role", "content", "parts"),
    *("type", "createdAt", "attachments", "experimental_attachments", "toolInvocations"),
    *("customerSpecificTools", "state", "output", "toolCallId", "readPageTool", "guideEnabled"),
)
_names = st.one_of(st.sampled_from(_KNOWN), st.text(max_size=8))
json_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(_names, inner, max_size=6)
    ),
    max_leaves=20,
)


def _encoded(value: object) -> bytes:
    # As some clients would: a lone surrogate is an escape.
    return json.dumps(value).encode()


@st.composite
def bodies(draw: st.DrawFn, chat: Chat) -> bytes:
    """A body for the route: random bytes, random JSON, or its own with members gone wrong."""
    kind = draw(st.sampled_from(["bytes", "json", "members", "cut", "spliced"]))
    good = chat.body(CONVERSATION, "Hello")
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "json":
        return _encoded(draw(json_values))
    if kind == "members":
        changed = json.loads(good)
        changed.update(draw(st.dictionaries(_names, json_values, max_size=4)))
        if isinstance(changed.get("message"), dict) and draw(st.booleans()):
            changed["message"].update(draw(st.dictionaries(_names, json_values, max_size=4)))
        return _encoded(changed)
    at = draw(st.integers(0, len(good)))
    if kind == "cut":
        return good[:at]
    return good[:at] + draw(st.binary(max_size=8)) + good[at:]


_field_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60)


@st.composite
def heads(draw: st.DrawFn, chat: Chat, names: tuple[str, ...]) -> RequestHead:
    """A head for the route, in which each of these fields is sent up to twice, saying anything."""
    fields = [("content-type", "application/json")] if draw(st.booleans()) else []
    for name in names:
        usual = st.sampled_from(["application/json", "text/event-stream", "Bearer x", "*/*", "1"])
        values = draw(st.lists(st.one_of(usual, _field_text), max_size=2))
        fields += [(name, value) for value in values]
    params: Mapping[str, str] = {"id": draw(st.one_of(st.just(CONVERSATION), st.text(max_size=10)))}
    path = chat.path.replace("{id}", CONVERSATION)
    return RequestHead(chat.method, path, "", Headers(tuple(fields)), params)


routes = st.sampled_from(ALL)
