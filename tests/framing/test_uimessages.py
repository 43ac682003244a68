from collections.abc import Iterable

from gateway.framing.uimessages import KEEP_ALIVE, ChunkWriter


def chunks(records: Iterable[bytes]) -> list[str]:
    return [
        record.decode("ascii").removeprefix("data: ").removesuffix("\n\n") for record in records
    ]


def test_a_message_starts_with_its_id_and_a_step() -> None:
    assert chunks(ChunkWriter().start("m1")) == [
        '{"type":"start","messageId":"m1"}',
        '{"type":"start-step"}',
    ]


def test_a_part_is_opened_once_and_closed_before_one_of_the_other_kind() -> None:
    writer = ChunkWriter()
    assert chunks(writer.text("a")) == [
        '{"type":"text-start","id":"text-1"}',
        '{"type":"text-delta","id":"text-1","delta":"a"}',
    ]
    assert chunks(writer.text("b")) == ['{"type":"text-delta","id":"text-1","delta":"b"}']
    assert chunks(writer.text("c", "reasoning")) == [
        '{"type":"text-end","id":"text-1"}',
        '{"type":"reasoning-start","id":"reasoning-2"}',
        '{"type":"reasoning-delta","id":"reasoning-2","delta":"c"}',
    ]
    assert chunks(writer.text("d"))[0] == '{"type":"reasoning-end","id":"reasoning-2"}'


def test_a_tool_call_closes_the_open_part() -> None:
    end = '{"type":"text-end","id":"text-1"}'
    writer = ChunkWriter()
    writer.text("a")
    assert chunks(writer.call_start("c1", "look")) == [
        end,
        '{"type":"tool-input-start","toolCallId":"c1","toolName":"look"}',
    ]
    assert chunks(writer.call_delta("c1", '{"i')) == [
        '{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"{\\"i"}'
    ]
    assert chunks(writer.call("c1", "look", '{"id":1}')) == [
        '{"type":"tool-input-available","toolCallId":"c1","toolName":"look","input":{"id":1}}'
    ]
    assert chunks(writer.output("c1", "[2]")) == [
        '{"type":"tool-output-available","toolCallId":"c1","output":[2]}'
    ]
    assert chunks(writer.output_error("c1", "no")) == [
        '{"type":"tool-output-error","toolCallId":"c1","errorText":"no"}'
    ]


def test_sources_and_data_leave_the_open_part_open() -> None:
    writer = ChunkWriter()
    writer.text("a")
    assert chunks(writer.source("1", "https://a.example", "A")) == [
        '{"type":"source-url","sourceId":"1","url":"https://a.example","title":"A"}'
    ]
    assert chunks(writer.source("1", "https://a.example", None)) == [
        '{"type":"source-url","sourceId":"1","url":"https://a.example"}'
    ]
    assert chunks(writer.data("guard", '{"k":1}')) == ['{"type":"data-guard","data":{"k":1}}']
    assert chunks(writer.text("b")) == ['{"type":"text-delta","id":"text-1","delta":"b"}']


def test_a_step_that_is_over_is_finished_by_what_comes_next() -> None:
    writer = ChunkWriter()
    writer.text("a")
    assert chunks(writer.step_end()) == ['{"type":"text-end","id":"text-1"}']
    assert chunks(writer.text("b")) == [
        '{"type":"finish-step"}',
        '{"type":"start-step"}',
        '{"type":"text-start","id":"text-2"}',
        '{"type":"text-delta","id":"text-2","delta":"b"}',
    ]
    writer.step_end()
    assert chunks(writer.step_end()) == ['{"type":"finish-step"}', '{"type":"start-step"}']


def test_the_annotation_comes_before_the_last_step_is_finished() -> None:
    for over in (True, False):
        writer = ChunkWriter()
        writer.start("m1")
        if over:
            writer.step_end()
        assert chunks(writer.finish('{"id":"m1"}', '{"latencyMs":1}')) == [
            '{"type":"data-annotation","data":{"id":"m1"}}',
            '{"type":"finish-step"}',
            '{"type":"finish","messageMetadata":{"latencyMs":1}}',
            "[DONE]",
        ]


def test_an_error_settles_every_open_part_and_call_and_finishes_nothing() -> None:
    writer = ChunkWriter()
    writer.call_start("c1", "look")
    writer.call_start("c2", "look")
    writer.output("c2", "1")
    writer.text("a")
    assert chunks(writer.error("no", unsettled="gone")) == [
        '{"type":"text-end","id":"text-1"}',
        '{"type":"tool-output-error","toolCallId":"c1","errorText":"gone"}',
        '{"type":"error","errorText":"no"}',
        "[DONE]",
    ]


def test_an_error_after_a_step_that_is_over_finishes_that_step() -> None:
    writer = ChunkWriter()
    writer.step_end()
    assert chunks(writer.error("no", unsettled="gone")) == [
        '{"type":"finish-step"}',
        '{"type":"error","errorText":"no"}',
        "[DONE]",
    ]


def test_every_record_is_one_event_of_ascii() -> None:
    writer = ChunkWriter()
    text = 'é\U0001f600\r\n\u2028"\\'
    records = [
        *writer.start(text),
        *writer.text(text),
        *writer.call_start(text, text),
        *writer.call_delta(text, text),
        *writer.source(text, text, text),
        *writer.error(text, unsettled=text),
        KEEP_ALIVE,
    ]
    for record in records:
        assert record.isascii()
        assert b"\r" not in record
        assert record.endswith(b"\n\n")
        assert b"\n" not in record[:-2]
