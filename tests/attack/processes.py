"""What a site's processes hold, read from /proc: memory, descriptors, processor time, tasks."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PARENT, _SESSION, _USER, _SYSTEM = 1, 3, 11, 12


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    fields = text.rpartition(")")[2].split()
    return [] if fields[0] == "Z" else fields


def session_of(leader: int) -> list[int]:
    """The living processes of the session that this process leads."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (fields := _stat(pid)) and int(fields[_SESSION]) == leader]


def children_of(pid: int) -> list[int]:
    """The living children of a process of a session."""
    return [each for each in session_of(pid) if int((_stat(each) or ["", "0"])[_PARENT]) == pid]


def resident_bytes(leader: int) -> int:
    """Memory that the session's processes hold."""
    total = 0
    for pid in session_of(leader):
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return total


def descriptors(leader: int) -> int:
    """Files and sockets that the session's processes hold."""
    total = 0
    for pid in session_of(leader):
        with suppress(OSError):
            total += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return total


def cpu_seconds(leader: int) -> float:
    """Processor time that the session's living processes have used."""
    total = 0
    for pid in session_of(leader):
        if fields := _stat(pid):
            total += int(fields[_USER]) + int(fields[_SYSTEM])
    return total / _TICKS


async def tasks(probes: Path, pid: int) -> int:
    """Tasks that the process holds, as its probe says; 0 for one without an event loop."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_unix_connection(probes / str(pid))
            try:
                return int(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return 0


def end_session(leader: int) -> None:
    """Kills what is left of a session."""
    for pid in session_of(leader):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
