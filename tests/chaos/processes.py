"""What a gateway's processes hold, read from Linux' /proc."""

from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """Resident bytes and open files of a process group."""

    resident: int
    files: int


def usage(group: int) -> Usage:
    """The sums over all processes of the group."""
    resident = files = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            if int(fields[2]) == group:
                resident += int((entry / "statm").read_text().split()[1]) * 4096
                files += len(list((entry / "fd").iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return Usage(resident, files)
