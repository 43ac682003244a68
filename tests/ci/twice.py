"""Runs pytest, and what failed once more, alone: a machine that was held up makes clocks run out.

    python -m tests.ci.twice OPTIONS

Names the tests that passed only then, and adds them to the file that the variable `RETRIED` names,
so that `make ci` can end with them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_CACHE = "cache_dir="


def main(options: Sequence[str]) -> int:
    """The exit status of the last run."""
    status = _pytest(options)
    if status != 1:  # good, or nothing that another try could mend
        return status
    failed = _failed(options)
    print("\n== once more, alone: what failed", flush=True)
    status = _pytest([*options, "-n", "0", "--last-failed", "--last-failed-no-failures", "none"])
    if late := sorted(failed - _failed(options)):
        _tell(late)
    return status


def _pytest(options: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *options], check=False).returncode


def _failed(options: Sequence[str]) -> set[str]:
    """The tests that pytest remembers as failed."""
    given = [option.removeprefix(_CACHE) for option in options if option.startswith(_CACHE)]
    file = Path(given[-1] if given else ".pytest_cache") / "v" / "cache" / "lastfailed"
    return set(json.loads(file.read_text())) if file.exists() else set()


def _tell(late: Sequence[str]) -> None:
    print("== passed only when tried once more, alone:", *late, sep="\n", flush=True)
    if retried := os.environ.get("RETRIED"):
        with Path(retried).open("a") as file:
            file.writelines(f"{name}\n" for name in late)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
