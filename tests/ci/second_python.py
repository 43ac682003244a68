"""Runs the unit and serving tests on another Python than this one, where one is present.

Looks for python3.13 and python3.12 on PATH and among pyenv's versions, makes an environment for it
in `.venv-second`, and leaves out with a clear line if there is none. End-to-end tests, the model
and the README are not repeated: they test the same processes over sockets.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".venv-second"
PYTHON: Final = HOME / "bin" / "python"
PINS: Final = ROOT / "requirements-dev.txt"
WANTED: Final = ("3.13", "3.12")
LONGEST_S: Final = 900
ONCE: Final = ("e2e", "ci", "clients", "attack", "test_readme.py", "test_import_rules.py")


def version_of(python: str | Path) -> str | None:
    """Its `3.x` if it is CPython, runs and can make environments; a name may be a dead launcher."""
    script = (
        "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        " if sys.implementation.name == 'cpython' else sys.exit(1)"
    )
    try:
        done = subprocess.run(
            [python, "-c", script], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def find() -> Path | None:
    """The newest wanted Python that is not the version of this process."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in WANTED:
        if version == own:
            continue
        on_path = shutil.which(f"python{version}")
        installed = sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
        for python in ([Path(on_path)] if on_path else []) + installed:
            if version_of(python) == version:
                return python
    return None


def prepare(python: Path) -> None:
    """Makes the environment, or uses the one that was made with the same Python and pins."""
    mark = f"{version_of(python)} {hashlib.sha256(PINS.read_bytes()).hexdigest()}\n"
    stamp = HOME / ".made-with"
    if stamp.exists() and stamp.read_text() == mark and version_of(PYTHON):
        return
    print(f"installing into {HOME.name}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", HOME], check=True)
    (HOME / ".gitignore").write_text("*\n")
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-input", "--require-hashes"]
    subprocess.run([*pip, "-r", PINS], check=True)
    stamp.write_text(mark)


def main() -> int:
    """The exit status of the tests; 0 if there is nothing to run them on."""
    python = find()
    if python is None:
        print(f"left out: no other CPython here (looked for {', '.join(WANTED)})")
        return 0
    print(f"Python {version_of(python)}", flush=True)
    prepare(python)
    ignored = [f"--ignore={ROOT / 'tests' / name}" for name in ONCE]
    cache = ["-o", f"cache_dir={HOME / '.pytest_cache'}"]
    return run_tests("-q", "-n", "2", "--dist", "loadfile", "-m", "not model", *cache, *ignored)


def run_tests(*options: str) -> int:
    """The exit status of pytest on that Python; 1 if it does not end in time."""
    command = [str(PYTHON), "-m", "tests.ci.twice", *options, "tests"]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as tests:
        try:
            return tests.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)
            print(f"no end within {LONGEST_S} s")
            return 1


if __name__ == "__main__":
    sys.exit(main())
