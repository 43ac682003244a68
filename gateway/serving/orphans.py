"""Children that are nobody's any more.

What a worker had started, and left behind when it died, becomes the child of the system's first
process. In a container that is the supervisor, and whom nobody waits for stays as a zombie.
"""

import os
from collections.abc import Collection


def bury(own: Collection[int]) -> int:
    """Waits for ended children that are not among `own`; for how many.

    Those among `own` are left to whoever started them; an ended one hides others until then.
    """
    count = 0
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid in own:
                return count
            os.waitpid(found.si_pid, os.WNOHANG)
        except ChildProcessError:
            return count
        count += 1
