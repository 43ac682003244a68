import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.events import ModelFinished, RoundFinished, TurnStarted
from gateway.grammar import Grammar
from gateway.ports.codecs import Upstream
from gateway.upstreams.anthropic import Anthropic
from gateway.upstreams.openai import OpenAI
from tests.upstreams.corpus import Case, cases, decode, end, feed, single_bytes

CODECS: tuple[Upstream, ...] = (OpenAI(), Anthropic())
ALL = [(codec, case) for codec in CODECS for case in cases(codec.provider)]
each_stream = pytest.mark.parametrize(
    ("codec", "case"), ALL, ids=[f"{codec.provider}-{case.name}" for codec, case in ALL]
)


def after(codec: Upstream, *chunks: bytes) -> list[dict[str, object]]:
    return decode(codec.decoder("text/event-stream"), chunks)


@each_stream
def test_a_stream_means_its_events(codec: Upstream, case: Case) -> None:
    assert after(codec, case.stream) == case.rows


@each_stream
def test_a_stream_fed_byte_by_byte_means_the_same(codec: Upstream, case: Case) -> None:
    assert after(codec, *single_bytes(case.stream)) == case.rows


@each_stream
def test_a_stream_split_in_two_anywhere_means_the_same(codec: Upstream, case: Case) -> None:
    for place in range(len(case.stream)):
        assert after(codec, case.stream[:place], case.stream[place:]) == case.rows, place


@given(st.sampled_from(ALL), st.data())
def test_any_split_means_the_same(pair: tuple[Upstream, Case], data: st.DataObject) -> None:
    codec, case = pair
    cuts = sorted(data.draw(st.lists(st.integers(0, len(case.stream)), max_size=20)))
    chunks = [
        case.stream[low:high]
        for low, high in zip([0, *cuts], [*cuts, len(case.stream)], strict=True)
    ]
    assert after(codec, *chunks) == case.rows


@each_stream
def test_a_stream_cut_off_anywhere_is_its_beginning_and_good_only_after_its_finish(
    codec: Upstream, case: Case
) -> None:
    for place in range(len(case.stream)):
        head = case.stream[:place]
        decoder = codec.decoder("text/event-stream")
        told = feed(decoder, [head])
        assert told == case.rows[: len(told)], place
        last = (told + end(decoder, told))[-1]
        if last.get("event") == "ModelFinished":
            assert _finish_was_sent(codec.provider, head), place
        else:
            assert "error" in last, place
            assert last["error"] in ("Truncated", case.rows[-1].get("error")), place


@each_stream
def test_the_events_of_a_stream_are_in_a_legal_order(codec: Upstream, case: Case) -> None:
    decoder = codec.decoder("text/event-stream")
    grammar = Grammar()
    grammar.advance(TurnStarted())
    with contextlib.suppress(GatewayError):
        for event in (*decoder.feed(case.stream), *decoder.close()):
            if isinstance(event, ModelFinished):
                grammar.advance(RoundFinished(event.reason, event.usage))
            else:
                assert getattr(event, "text", "-") != ""
                grammar.advance(event)


@each_stream
def test_the_deltas_of_a_call_are_the_beginning_of_its_arguments(
    codec: Upstream, case: Case
) -> None:
    told: dict[object, str] = {}
    for row in case.rows:
        if row.get("event") == "ToolCallDelta":
            told[row["call_id"]] = told.get(row["call_id"], "") + str(row["arguments"])
        if row.get("event") == "ToolCallEnded":
            assert str(row["arguments"]).startswith(told.get(row["call_id"], ""))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.provider)
def test_nothing_follows_the_finish(codec: Upstream) -> None:
    case = next(case for case in cases(codec.provider) if case.name == "text")
    decoder = codec.decoder("text/event-stream")
    assert feed(decoder, [case.stream]) == case.rows
    assert decoder.feed(case.stream) == []
    assert decoder.feed(b"data: {]\n\n") == []
    assert decoder.close() == []


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.provider)
@given(stream=st.binary(max_size=200))
def test_noise_is_an_error_of_the_upstream(codec: Upstream, stream: bytes) -> None:
    for head in (b"", b"data: ", b"data: {"):
        assert after(codec, head + stream)[-1].keys() == {"error"}


def _vocabulary() -> tuple[list[str], list[str]]:
    """The member names of all streams, and the words that stand where a type or a reason does."""
    names: set[str] = set()
    words: set[str] = set()

    def note(pairs: list[tuple[str, object]]) -> None:
        names.update(name for name, _ in pairs)
        chosen = {name: value for name, value in pairs if name in ("type", "finish_reason")}
        words.update(value for value in chosen.values() if isinstance(value, str))

    for _, case in ALL:
        for line in case.stream.decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                json.loads(line.removeprefix("data:"), object_pairs_hook=note)
    return sorted(names), [*sorted(words), "\ud83d", "\0"]


MEMBERS, WORDS = _vocabulary()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.sampled_from(WORDS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5)
    ),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=6)
TYPED = st.builds(
    lambda kind, body: {"type": kind, "index": 0} | body, st.sampled_from(WORDS), OBJECTS
)
BODIES = st.one_of(
    TYPED,
    st.builds(lambda body, inner: {**body, "delta": inner, "content_block": inner}, TYPED, TYPED),
    OBJECTS.map(lambda choice: {"choices": [choice]}),
    OBJECTS.map(lambda delta: {"choices": [{"delta": delta}]}),
    OBJECTS.map(lambda call: {"choices": [{"delta": {"tool_calls": [call]}}]}),
)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.provider)
@given(bodies=st.lists(BODIES, max_size=5), data=st.data())
def test_any_json_is_events_or_an_error_of_the_upstream(
    codec: Upstream, bodies: list[dict[str, object]], data: st.DataObject
) -> None:
    stream = b"".join(b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies)
    whole = json.dumps({"choices": [{"message": data.draw(OBJECTS)}], "content": data.draw(JSON)})
    for rows in (
        after(codec, stream),
        decode(codec.decoder("application/json"), [whole.encode()]),
    ):
        # Every text has a UTF-8 form, and the last row says how it ended.
        json.dumps(rows, ensure_ascii=False).encode()
        assert "error" in rows[-1] or rows[-1]["event"] == "ModelFinished"


def _finish_was_sent(provider: str, stream: bytes) -> bool:
    """Whether a reader that knows no more than lines and JSON finds the finish in the bytes."""
    text = stream.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n"):
        try:
            payload = json.loads(line.removeprefix("data:"))
        except ValueError:
            continue
        if not isinstance(payload, dict):
            continue
        if provider == "anthropic":
            if payload.get("type") == "message_stop":
                return True
        elif any(choice.get("finish_reason") for choice in payload.get("choices") or ()):
            return True
    return False
