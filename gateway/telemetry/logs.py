"""JSON lines on standard output: one per request, and one per thing that somebody should see.

`lines.py` says what a line looks like and what never gets into one. What other libraries log and
exceptions that nobody caught end in the same lines.

Lines are written by a thread from a bounded queue: a reader of standard output that stands still
costs lines, which are counted, and never a request.
"""

import atexit
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TextIO

import structlog

from gateway.telemetry.lines import LINE_BYTES, encode_line, exception_fields
from gateway.turn.tally import TurnTally

_QUEUED_LINES: Final = 4096
_BATCH_LINES: Final = 256
# Lines that come within this time of the first are written together: a thread that woke up for each
# would take the interpreter from the event loop as often.
_GATHER_S: Final = 0.02
_FLUSH_S: Final = 1.0
_REFUSALS_PER_S: Final = 10
_FAILED_CALLS: Final = 5

# Somebody should look at these; all other ends of a request are everyday life.
_LOUD: Final[dict[str, str]] = {
    "internal": "error",
    "worker_lost": "error",
    "store_unavailable": "warning",
    "overloaded": "warning",
    "upstream_error": "warning",
    "upstream_rate_limited": "warning",
    "upstream_unavailable": "warning",
    "upstream_timeout": "warning",
    "truncated": "warning",
    "deadline": "warning",
    "drained": "warning",
}

Fields = MutableMapping[str, object]


@dataclass(slots=True)
class RequestLine:
    """What is logged of a request besides its turn's tally; filled in as it becomes known.

    `route` is the template of the path, never the path; `key` the configured name of a key, never
    its text; `kind` the kind of the error that ended the request, if one did, and `why` more of it
    where that cannot hold anything of the request; `bytes` the body bytes sent.
    """

    request_id: str
    method: str
    http_version: str
    route: str | None = None
    dialect: str | None = None
    status: int = 0
    outcome: str = "ok"
    kind: str | None = None
    tenant: str | None = None
    key: str | None = None
    duration_ms: int = 0
    bytes: int = 0
    why: str | None = None


def configure(stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Sends all logging of this process to `stream` (standard output) as JSON lines.

    The number of a `worker` is in every line of its process.

    Of other libraries only warnings and errors are logged: below that some print header fields, and
    Hypercorn says a second time where it listens.
    """
    shutdown()
    _output.writer = writer = _Writer(stream or sys.stdout)
    _output.refusals = _Refusals()
    _output.everywhere = {} if worker is None else {"worker": worker}
    structlog.configure(
        processors=[structlog.processors.add_log_level, _explain, _finish],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Handler()]
    root.setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def request_line(line: RequestLine, tally: TurnTally | None = None) -> None:
    """Logs one request that is over; `tally` is its turn's, None if it was not admitted.

    Refusals of one kind beyond ten in a second are left out; the next line of that kind says how
    many as `suppressed`.
    """
    suppressed: int | None = 0
    if tally is None and line.kind is not None:
        suppressed = _output.refusals.admit(line.kind, time.monotonic())
        if suppressed is None:
            return
    fields: dict[str, object] = {
        "event": "request",
        "level": _LOUD.get(line.kind or line.outcome, "info"),
        "request_id": line.request_id,
        "dialect": line.dialect,
        "route": line.route,
        "method": line.method,
        "status": line.status,
        "http_version": line.http_version,
        "outcome": line.outcome,
        "kind": line.kind,
        "tenant": line.tenant,
        "key": line.key,
        "duration_ms": line.duration_ms,
        "bytes": line.bytes,
    }
    if tally is not None:
        _add_turn(fields, tally)
    if why := line.why or (tally.why if tally is not None else ""):
        fields["why"] = why
    if suppressed:
        fields["suppressed"] = suppressed
    _output.write(fields)


def dropped_lines() -> int:
    """How many lines this process has lost because its output was not read in time."""
    return _output.writer.dropped if _output.writer else 0


def flush(timeout: float = _FLUSH_S) -> bool:
    """Waits up to `timeout` seconds until every line so far is written; whether it is."""
    return _output.writer.flush(timeout) if _output.writer else True


def shutdown(timeout: float = _FLUSH_S) -> None:
    """Writes what is pending and undoes `configure`; also for processes that skip `atexit`."""
    if _output.writer is None:
        return
    flush(timeout)
    _output.writer.stop()
    _output.writer = None
    logging.getLogger().handlers = []
    structlog.reset_defaults()
    sys.excepthook = sys.__excepthook__
    threading.excepthook = threading.__excepthook__


def _add_turn(fields: dict[str, object], tally: TurnTally) -> None:
    usage = tally.usage
    last = tally.rounds[-1] if tally.rounds else None
    shown = tally.first_delivered
    fields |= {
        "upstream": last.upstream if last else None,
        "target": last.target if last else None,
        "calls": len(tally.rounds),
        "model": last.model if last else None,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "first_token_ms": None if shown is None else round((shown - tally.began) * 1000),
        "bytes": tally.bytes,
        "deltas": tally.deltas,
        "delivered": tally.delivered,
        "cost": None if tally.cost is None else round(tally.cost, 9),
    }
    failed = [
        f"{entry.target}: {entry.why}"
        for entry in tally.rounds
        if entry.error not in (None, "cancelled")
    ]
    if failed:
        fields["failed_calls"] = failed[-_FAILED_CALLS:]
    if tally.ended is not None:
        fields["duration_ms"] = round((tally.ended - tally.began) * 1000)


class _Refusals:
    """Which refusals are logged: so many per kind in each second."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}
        self._suppressed: dict[str, int] = {}

    def admit(self, kind: str, now: float) -> int | None:
        """None to leave this one out, else how many of its kind were left out before it."""
        began, count = self._windows.get(kind, (now, 0))
        if now - began >= 1:
            began, count = now, 0
        self._windows[kind] = (began, count + 1)
        if count >= _REFUSALS_PER_S:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        return self._suppressed.pop(kind, 0)


class _Writer:
    """Lines out to a stream, by a thread; the structlog logger at the end of the chain."""

    def __init__(self, stream: TextIO) -> None:
        self.dropped = 0
        self._stream = stream
        self._told = 0
        self.start()

    def start(self) -> None:
        """Starts with an empty queue; a fork has neither the thread nor a queue to trust."""
        self._lines: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, line: bytes) -> None:
        if self._lines.qsize() >= _QUEUED_LINES:
            self.dropped += 1
        else:
            self._lines.put(line)

    debug = info = warning = error = critical = log = msg = write

    def flush(self, timeout: float) -> bool:
        done = threading.Event()
        self._lines.put(done)
        return done.wait(timeout)

    def stop(self) -> None:
        self._lines.put(None)

    def _run(self) -> None:
        lines = self._lines
        while (entry := lines.get()) is not None:
            batch = []
            if isinstance(entry, bytes):
                time.sleep(_GATHER_S)
            while isinstance(entry, bytes):
                batch.append(entry)
                if len(batch) == _BATCH_LINES or lines.empty():
                    break
                entry = lines.get()
            self._put(batch)
            if isinstance(entry, threading.Event):
                entry.set()
            elif entry is None:
                return

    def _put(self, batch: list[bytes]) -> None:
        if self.dropped > self._told:
            count, self._told = self.dropped - self._told, self.dropped
            batch.append(
                encode_line({"event": "log_lines_dropped", "level": "warning", "count": count})
            )
        for piece in _pieces(batch):
            try:
                self._stream.write(b"".join(piece).decode("ascii"))
                self._stream.flush()
            except (OSError, ValueError):  # the reader has gone, or the stream was closed
                self.dropped += len(piece)


def _pieces(batch: list[bytes]) -> Iterator[list[bytes]]:
    """The lines in parts that a pipe takes whole (POSIX, write): others write to it as well."""
    piece: list[bytes] = []
    size = 0
    for line in batch:
        if piece and size + len(line) > LINE_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield piece


class _Handler(logging.Handler):
    """What other libraries log, in the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            detail = record.getMessage()
        except (TypeError, ValueError, LookupError):
            detail = str(record.msg)
        fields: dict[str, object] = {
            "event": "library",
            "level": record.levelname.lower(),
            "logger": record.name,
            # asyncio puts the repr of tasks, and so the values in them, on further lines.
            "detail": detail.partition("\n")[0],
        }
        if record.exc_info and record.exc_info[1]:
            fields["exception"] = exception_fields(record.exc_info[1])
        _output.write(fields)


class _Output:
    """Where this process logs to; logging is of the process, so this is its one global."""

    def __init__(self) -> None:
        self.writer: _Writer | None = None
        self.everywhere: dict[str, object] = {}
        self.refusals = _Refusals()

    def write(self, fields: Mapping[str, object]) -> None:
        if self.writer is not None:
            self.writer.write(encode_line({**fields, **self.everywhere}))


def _explain(_: object, __: str, fields: Fields) -> Fields:
    """structlog processor: an exception becomes its type and place."""
    found = fields.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()[1]
    elif isinstance(found, tuple):
        found = found[1]
    if isinstance(found, BaseException):
        fields["exception"] = exception_fields(found)
    return fields


def _finish(_: object, __: str, fields: Fields) -> bytes:
    """structlog processor, the last: the fields, redacted, as a line."""
    return encode_line({**fields, **_output.everywhere})


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger().critical("uncaught", exc_info=error)


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread else None
    structlog.get_logger().critical("uncaught", thread=name, exc_info=arguments.exc_value)


def _after_fork() -> None:
    if _output.writer is not None:
        _output.writer.start()


_output: Final = _Output()
atexit.register(shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
