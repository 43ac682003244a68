import json

from gateway.framing.datastream import KEEP_ALIVE, PartWriter, annotations, source

START = b'f:{"messageId":"m1"}\n'


def test_the_first_part_of_a_step_opens_it() -> None:
    writer = PartWriter("m1")
    assert list(writer.text("Hel")) == [START, b'0:"Hel"\n']
    assert list(writer.text("lo")) == [b'0:"lo"\n']
    assert writer.step() == []


def test_what_comes_after_a_step_opens_the_next() -> None:
    writer = PartWriter("m1")
    writer.step()
    ended = b'e:{"finishReason":"tool-calls","isContinued":false}\n'
    assert writer.step_end("tool-calls", None) == [ended]
    assert writer.reasoning("hm") == [START, b'g:"hm"\n']


def test_a_step_without_parts_is_still_opened_before_it_ends() -> None:
    writer = PartWriter("m1")
    assert writer.step_end("stop", None) == [
        START,
        b'e:{"finishReason":"stop","isContinued":false}\n',
    ]


def test_usage_is_left_out_where_there_is_none() -> None:
    usage = '{"promptTokens":11,"completionTokens":7}'
    with_usage = b'"usage":{"promptTokens":11,"completionTokens":7}'
    writer = PartWriter("m1")
    writer.step()
    step = b'e:{"finishReason":"stop",' + with_usage + b',"isContinued":false}\n'
    assert writer.step_end("stop", usage) == [step]
    assert writer.end("stop", usage) == [b'd:{"finishReason":"stop",' + with_usage + b"}\n"]
    assert writer.end("stop", None) == [b'd:{"finishReason":"stop"}\n']


def test_the_end_closes_an_open_step() -> None:
    writer = PartWriter("m1")
    writer.step()
    assert writer.end("length", None) == [
        b'e:{"finishReason":"length","isContinued":false}\n',
        b'd:{"finishReason":"length"}\n',
    ]


def test_an_error_ends_step_and_message_whether_a_step_is_open_or_not() -> None:
    failed = [
        b'3:"no"\n',
        b'e:{"finishReason":"error","isContinued":false}\n',
        b'd:{"finishReason":"error"}\n',
    ]
    writer = PartWriter("m1")
    writer.step()
    assert writer.error("no") == failed
    writer = PartWriter("m1")
    writer.step_end("stop", None)
    assert writer.error("no") == failed


def test_arguments_that_are_no_object_become_an_empty_one() -> None:
    writer = PartWriter("m1")
    writer.step()
    assert writer.call("c1", "look", '{"id":42}') == [
        b'9:{"toolCallId":"c1","toolName":"look","args":{"id":42}}\n'
    ]
    for arguments in ("[1]", '"{"', "null"):
        (record,) = writer.call("c1", "look", arguments)
        assert json.loads(record[2:])["args"] == {}


def test_a_result_is_any_json() -> None:
    writer = PartWriter("m1")
    writer.step()
    assert writer.result("c1", "[1]") == [b'a:{"toolCallId":"c1","result":[1]}\n']


def test_every_record_is_one_line_of_ascii() -> None:
    writer = PartWriter('m"1\n')
    text = 'é\U0001f600\r\n\u2028"\\'
    records = [
        *writer.text(text),
        *writer.reasoning(text),
        *writer.call(text, text, "{}"),
        *writer.error(text),
        source(text, text, text),
        source(text, text, None),
        annotations(['{"a":1}', "2"]),
        KEEP_ALIVE,
    ]
    for record in records:
        assert record.isascii()
        assert record.count(b"\n") == 1
        assert record.endswith(b"\n")
        assert b"\r" not in record
    assert records[1] == b'0:"\\u00e9\\ud83d\\ude00\\r\\n\\u2028\\"\\\\"\n'


def test_a_source_without_a_name_has_no_title() -> None:
    assert source("1", "https://a.example", "A") == (
        b'h:{"sourceType":"url","id":"1","url":"https://a.example","title":"A"}\n'
    )
    assert source("1", "https://a.example", None) == (
        b'h:{"sourceType":"url","id":"1","url":"https://a.example"}\n'
    )


def test_annotations_are_an_array() -> None:
    assert annotations(['{"id":"m1"}']) == b'8:[{"id":"m1"}]\n'


def test_an_early_stream_has_only_codes_of_version_4_0() -> None:
    writer = PartWriter("m1", early=True)
    assert writer.step() == [b'0:""\n']
    assert writer.reasoning("hm") == []
    assert list(writer.text("Hel")) == [b'0:"Hel"\n']
    called = b'9:{"toolCallId":"c","toolName":"t","args":{}}\n'
    assert writer.call("c", "t", "{}") == [called]
    step = b'e:{"finishReason":"tool-calls","isContinued":false}\n'
    assert writer.step_end("tool-calls", None) == [step]
    assert list(writer.text("lo")) == [b'0:"lo"\n']
    assert writer.end("stop", None) == [
        b'e:{"finishReason":"stop","isContinued":false}\n',
        b'd:{"finishReason":"stop"}\n',
    ]
