from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.framing import events_out
from gateway.framing.asciijson import dumps
from gateway.readers.eventstream import EventStream


@settings(max_examples=200, derandomize=True)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_events_read_back_with_their_names_whatever_stands_between(texts: list[str]) -> None:
    stream = EventStream()
    events: list[tuple[str, str]] = []
    for text in texts:
        events += stream.feed(events_out.event("token", dumps({"text": text})))
        events += stream.feed(events_out.KEEP_ALIVE)
        events += stream.feed(events_out.message(dumps(text)))
    stream.close()
    assert events == [
        event
        for text in texts
        for event in (("token", dumps({"text": text})), ("message", dumps(text)))
    ]
    assert stream.comments == ["keep-alive"] * len(texts)


def test_an_event_is_a_name_line_a_data_line_and_an_empty_line() -> None:
    assert events_out.event("token", "{}") == b"event: token\ndata: {}\n\n"
    assert events_out.message("{}") == b"data: {}\n\n"
