import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
from pathlib import Path

MARK = Path("was-here")

def test_good():
    pass

def test_late():
    assert MARK.exists()

def test_bad():
    MARK.touch()
    assert False
"""


def test_what_passes_only_alone_is_named_and_what_fails_again_still_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    kept = tmp_path / "kept"
    only_xdist = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ci.twice", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RETRIED": str(kept), **only_xdist},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    first, second = done.stdout.split("== once more, alone: what failed")
    assert "2 failed, 1 passed" in first
    assert "1 failed, 1 passed" in second
    assert done.returncode == 1
    assert kept.read_text() == "test_it.py::test_late\n"
    assert second.endswith("== passed only when tried once more, alone:\ntest_it.py::test_late\n")
