import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A process that orphans come to, as the first one of a container is (PR_SET_CHILD_SUBREAPER).
FIRST = """
import ctypes, os, subprocess, sys, time
from gateway.serving.orphans import bury
assert ctypes.CDLL(None).prctl(36, 1) == 0
assert bury(()) == 0
subprocess.run(["sh", "-c", "sleep 0.2 & sleep 0.4 &"], check=True)
own = subprocess.Popen(["sleep", "60"])
buried = 0
end = time.monotonic() + 30
while buried < 2 and time.monotonic() < end:
    buried += bury({own.pid})
    time.sleep(0.02)
own.kill()
while not os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT):
    pass
assert bury({own.pid}) == 0
assert own.wait() == -9
print(buried)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans go elsewhere")
def test_orphans_are_waited_for_and_own_children_are_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST], cwd=ROOT, capture_output=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == (b"2\n", b"")
