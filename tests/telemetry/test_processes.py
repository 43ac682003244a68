import os
import subprocess
import sys
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from gateway.telemetry.processes import Processes, resident_bytes


def value(children: list[int], name: str, looked_for: Callable[[], object] = lambda: None) -> float:
    def of() -> list[int]:
        looked_for()
        return children

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Processes(of))
    found = registry.get_sample_value(name)
    assert found is not None
    return found


def child(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_memory_and_descriptors_are_those_of_all_processes() -> None:
    with child("import sys; print(1, flush=True); sys.stdin.read()") as process:
        assert process.stdout is not None
        process.stdout.readline()
        own = value([], "process_open_fds")
        assert value([process.pid], "process_open_fds") >= own + 3
        held = resident_bytes(process.pid)
        assert held is not None
        assert held > 1_000_000
        assert value([process.pid], "process_resident_memory_bytes") > held
        assert value([process.pid], "process_max_fds") == value([], "process_max_fds")
        assert process.stdin is not None
        process.stdin.close()


BUSY = (
    "import time, sys\nend = time.process_time() + 0.2\n"
    "while time.process_time() < end: pass\nprint(1, flush=True); sys.stdin.read()"
)


def test_what_an_ended_child_used_of_the_processor_is_counted_on() -> None:
    with child(BUSY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        without = value([], "process_cpu_seconds_total")
        before = value([process.pid], "process_cpu_seconds_total")
        assert before >= without + 0.15
        assert process.stdin is not None
        process.stdin.close()
    assert value([], "process_cpu_seconds_total") >= before


def test_a_child_that_ends_while_it_is_looked_for_is_counted_all_the_same() -> None:
    with child(BUSY) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = value([process.pid], "process_cpu_seconds_total")
        process.kill()
        assert value([process.pid], "process_cpu_seconds_total", process.wait) >= before


def test_a_child_that_is_gone_is_left_out() -> None:
    with child("") as process:
        process.wait()
    assert resident_bytes(process.pid) is None
    assert value([process.pid], "process_open_fds") > 0
    assert os.getpid() != process.pid
