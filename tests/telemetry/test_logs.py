import asyncio
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
import uvloop
from hypercorn.config import Config
from hypercorn.logging import Logger

from gateway.messages import Price, Usage
from gateway.telemetry import logs
from gateway.telemetry.logs import RequestLine, _Refusals
from gateway.turn.tally import RoundTally, TurnTally

CANARY = "canary-0b5e55ed"
Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Iterator[Lines]:
    handlers = logging.getLogger().handlers
    logs.configure(stream)

    def read() -> list[dict[str, object]]:
        assert logs.flush(5)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    logs.shutdown()
    logging.getLogger().handlers = handlers


def line(**changes: str | int | None) -> RequestLine:
    made = RequestLine("req-1", "POST", "2", "/v1/chat/stream", "widget", 200)
    made.tenant, made.key = "acme", "site"
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def tally() -> TurnTally:
    calls = [
        RoundTally("spare", "openai", "old-model", 1.0, 1.1, 1.5, Usage(10, 1), price=Price(1, 0)),
        RoundTally(
            "main",
            "openai",
            "some-model",
            1.5,
            1.6,
            3.0,
            Usage(20, 9),
            target="10.0.0.1:9001/v1",
            price=Price(0.5, 2),
        ),
    ]
    return TurnTally(
        "widget",
        "2",
        1.0,
        outcome="ok",
        ended=3.0,
        first_generated=1.1,
        first_delivered=1.25,
        deltas=8,
        delivered=8,
        bytes=512,
        rounds=calls,
    )


def test_a_request_is_one_line_with_everything_about_its_turn(lines: Lines) -> None:
    logs.request_line(line(), tally())
    (found,) = lines()
    assert found.pop("ts")
    assert found == {
        "level": "info",
        "event": "request",
        "request_id": "req-1",
        "dialect": "widget",
        "route": "/v1/chat/stream",
        "method": "POST",
        "status": 200,
        "http_version": "2",
        "outcome": "ok",
        "kind": None,
        "tenant": "acme",
        "key": "site",
        "upstream": "main",
        "target": "10.0.0.1:9001/v1",
        "calls": 2,
        "model": "some-model",
        "input_tokens": 30,
        "output_tokens": 10,
        "first_token_ms": 250,
        "duration_ms": 2000,
        "bytes": 512,
        "deltas": 8,
        "delivered": 8,
        "cost": 0.000038,
    }


def test_a_line_says_why_a_turn_and_its_calls_failed(lines: Lines) -> None:
    turn = tally()
    turn.outcome, turn.why = "upstream_timeout", "silent for idle_s"
    failed = [
        RoundTally("main", "openai", "m", 0.0, error="upstream_error", why=f"no. {n}", target="a")
        for n in range(7)
    ]
    left = RoundTally("main", "openai", "m", 0.0, error="cancelled", why="cancelled")
    turn.rounds = [*failed, left, *turn.rounds]
    logs.request_line(line(), turn)
    (found,) = lines()
    assert found["why"] == "silent for idle_s"
    assert found["failed_calls"] == [f"a: no. {n}" for n in range(2, 7)]


def test_missing_usage_is_null_and_never_zero(lines: Lines) -> None:
    turn = tally()
    turn.rounds[1].usage = None
    turn.first_delivered = None
    logs.request_line(line(), turn)
    (found,) = lines()
    assert (found["input_tokens"], found["output_tokens"]) == (None, None)
    assert found["cost"] is None
    assert found["first_token_ms"] is None


@pytest.mark.parametrize(
    ("outcome", "kind", "level"),
    [
        ("ok", None, "info"),
        ("client_disconnect", None, "info"),
        ("unauthorized", "unauthorized", "info"),
        ("upstream_timeout", "upstream_timeout", "warning"),
        ("internal", "internal", "error"),
    ],
)
def test_the_level_says_whether_somebody_should_look(
    lines: Lines, outcome: str, kind: str | None, level: str
) -> None:
    logs.request_line(line(outcome=outcome, kind=kind))
    assert lines()[0]["level"] == level


def test_refusals_beyond_ten_a_second_are_counted_on_the_next_line_of_their_kind() -> None:
    refusals = _Refusals()
    shown = [refusals.admit("unauthorized", 5.0 + number / 1000) for number in range(100)]
    assert shown == [0] * 10 + [None] * 90
    assert refusals.admit("rate_limited", 5.2) == 0
    assert refusals.admit("unauthorized", 6.0) == 90
    assert refusals.admit("unauthorized", 6.1) == 0


def test_a_flood_of_refusals_does_not_flood_the_log(lines: Lines) -> None:
    for _ in range(500):
        logs.request_line(line(status=401, outcome="unauthorized", kind="unauthorized"))
    assert 10 <= len(lines()) < 250


def test_failed_turns_are_never_left_out(lines: Lines) -> None:
    for _ in range(50):
        logs.request_line(line(kind="upstream_error"), tally())
    assert len(lines()) == 50


def test_lines_of_other_modules_are_redacted_and_their_exceptions_bare(lines: Lines) -> None:
    try:
        int(CANARY)
    except ValueError:
        structlog.get_logger().exception("store_failed", text=CANARY, where="sqlite")
    (found,) = lines()
    assert (found["event"], found["level"], found["where"]) == ("store_failed", "error", "sqlite")
    assert isinstance(found["exception"], dict)
    assert found["exception"]["type"] == "builtins.ValueError"
    assert CANARY not in json.dumps(found)


def test_what_only_its_author_wants_to_see_is_not_written(lines: Lines) -> None:
    structlog.get_logger().debug("hidden")
    structlog.get_logger().info("shown")
    assert [found["level"] for found in lines()] == ["info"]


async def test_hypercorns_errors_come_out_as_json_and_its_greeting_does_not(lines: Lines) -> None:
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    logger = Logger(config)
    await logger.info("Running on %s", "127.0.0.1")
    try:
        int(CANARY)
    except ValueError:
        await logger.exception("Error in ASGI Framework")
    (found,) = lines()
    assert (found["event"], found["level"]) == ("library", "error")
    assert (found["logger"], found["detail"]) == ("hypercorn.error", "Error in ASGI Framework")
    assert isinstance(found["exception"], dict)
    assert found["exception"]["type"] == "builtins.ValueError"
    assert CANARY not in json.dumps(found)


def test_libraries_cannot_print_header_fields(lines: Lines) -> None:
    logging.getLogger("hpack.hpack").debug("Encoding %s", {"authorization": CANARY})
    logging.getLogger("aiohttp.client").info("headers %s", CANARY)
    logging.getLogger("aiohttp.client").warning("connection closed")
    assert [found["detail"] for found in lines()] == ["connection closed"]


def test_a_library_that_logs_wrong_arguments_loses_nothing(lines: Lines) -> None:
    # pytest's own handlers raise for such a record.
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if isinstance(handler, logs._Handler)]
    logging.getLogger("aiohttp").error("%d of %d", "x")
    assert lines()[0]["detail"] == "%d of %d"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_exception_that_no_task_awaited_is_a_line_without_its_values(
    lines: Lines, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def fail(prompt: str) -> None:
        raise ValueError(prompt)

    async def forget() -> None:
        await asyncio.wait([asyncio.create_task(fail(CANARY), name=CANARY)])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(forget())
    (found,) = lines()
    assert (found["logger"], found["level"]) == ("asyncio", "error")
    assert isinstance(found["exception"], dict)
    assert found["exception"]["type"] == "builtins.ValueError"
    assert CANARY not in json.dumps(found)


def test_an_exception_that_ends_a_thread_is_a_line(lines: Lines) -> None:
    def fail() -> None:
        raise LookupError(CANARY)

    thread = threading.Thread(target=fail, name="store")
    thread.start()
    thread.join()
    (found,) = lines()
    assert (found["event"], found["thread"]) == ("uncaught", "store")
    assert CANARY not in json.dumps(found)


def test_an_exception_that_ends_the_process_is_a_line(lines: Lines) -> None:
    error = LookupError(CANARY)
    sys.excepthook(LookupError, error, None)
    (found,) = lines()
    assert (found["event"], found["level"]) == ("uncaught", "critical")
    assert CANARY not in json.dumps(found)


def test_shutting_down_gives_back_what_was_taken(lines: Lines) -> None:
    assert lines() == []
    logs.shutdown()
    assert sys.excepthook is sys.__excepthook__
    assert threading.excepthook is threading.__excepthook__
    assert logging.getLogger().handlers == []
    assert logs.flush() is True
    assert logs.dropped_lines() == 0


def test_a_reader_that_stands_still_costs_lines_and_never_a_request() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream:  # noqa: PTH123  # a file descriptor has no path
        logs.configure(stream)
        began = time.perf_counter()
        for _ in range(8000):
            logs.request_line(line(), tally())
        assert time.perf_counter() - began < 10
        dropped = logs.dropped_lines()
        assert dropped > 0

        collected = bytearray()

        def drain() -> None:
            while block := os.read(reader, 65536):
                collected.extend(block)

        thread = threading.Thread(target=drain)
        thread.start()
        assert logs.flush(10)
        logs.request_line(line(), tally())
        logs.shutdown()
    thread.join()
    os.close(reader)
    found = [json.loads(text) for text in collected.splitlines()]
    told = [entry["count"] for entry in found if entry["event"] == "log_lines_dropped"]
    assert sum(told) == dropped
    assert sum(entry["event"] == "request" for entry in found) == 8001 - dropped


class _Writes(io.StringIO):
    """A stream that remembers every write, and takes none before `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(10)
        assert text.endswith("\n")
        self.sizes.append(len(text))
        return super().write(text)


def test_lines_are_written_whole_in_pieces_that_no_other_process_can_cut() -> None:
    stream = _Writes()
    logs.configure(stream)
    for _ in range(500):
        logs.request_line(line(), tally())
    stream.go.set()
    assert logs.flush(10)
    logs.shutdown()
    assert max(stream.sizes) <= 4096
    assert len(stream.sizes) < 200
    assert len(stream.getvalue().splitlines()) == 500


def test_the_lines_of_a_worker_say_which_it_is(stream: io.StringIO) -> None:
    handlers = logging.getLogger().handlers
    logs.configure(stream, worker=3)
    logs.request_line(line(), tally())
    logging.getLogger("aiohttp").error("oh")
    assert logs.flush(5)
    logs.shutdown()
    logging.getLogger().handlers = handlers
    assert [json.loads(text)["worker"] for text in stream.getvalue().splitlines()] == [3, 3]


def test_a_closed_stream_counts_its_lines_as_dropped(stream: io.StringIO) -> None:
    logs.configure(stream)
    stream.close()
    logs.request_line(line())
    assert logs.flush(5)
    assert logs.dropped_lines() >= 1
    logs.shutdown()


def test_a_forked_process_goes_on_logging() -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as stream:  # noqa: PTH123  # a file descriptor has no path
        logs.configure(stream)
        assert logs.flush(5)
        child = os.fork()
        if child == 0:
            logs.request_line(line())
            logs.shutdown()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        logs.shutdown()
    with open(reader) as stream:  # noqa: PTH123  # a file descriptor has no path
        assert [json.loads(text)["event"] for text in stream] == ["request"]


def test_a_line_is_cheap(lines: Lines) -> None:
    began = time.thread_time()  # whatever else the machine does meanwhile
    for _ in range(1000):
        logs.request_line(line(), tally())
    per_line = (time.thread_time() - began) / 1000
    assert len(lines()) == 1000
    assert per_line < 200e-6
