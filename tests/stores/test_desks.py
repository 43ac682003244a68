import time
from pathlib import Path

import apsw

from gateway.stores.desks import Writer

CONVERSATION = """
INSERT INTO conversations (tenant, dialect, id, public_id, created_at, updated_at, length)
VALUES ('acme', 'widget', ?1, ?1, 0, 0, ?2)
"""


REPLY = """
INSERT INTO replies (tenant, scope, body, conversation, turn, expires_at)
SELECT 'acme', ?1, 'body', number, 1, ?2 FROM conversations
"""


def fill(path: Path, conversations: int, length: int) -> None:
    connection = apsw.Connection(str(path))
    connection.executemany(CONVERSATION, ((str(n), length) for n in range(conversations)))
    connection.close()


def left(path: Path) -> int:
    connection = apsw.Connection(str(path))
    ((count,),) = connection.execute("SELECT count(*) FROM conversations").fetchall()
    connection.close()
    assert isinstance(count, int)
    return count


def sweeping_writer(path: Path) -> Writer:
    writer = Writer(path, keep_s=10.0, clock=lambda: 100.0)
    writer.open()
    return writer


def test_expired_conversations_go_a_few_at_a_time(path: Path) -> None:
    writer = sweeping_writer(path)
    fill(path, 120, 2)
    pauses = []
    for expected in (70, 20, 0):
        pauses.append(writer.rest())
        assert left(path) == expected
        writer._next_sweep = 0.0
    assert all(pause is not None and pause < 1 for pause in pauses)
    assert writer.rest() == 3600
    writer.close()


def test_replies_that_nobody_can_ask_for_any_more_go(path: Path) -> None:
    writer = sweeping_writer(path)
    connection = apsw.Connection(str(path))
    connection.execute(CONVERSATION.replace("0, 0", "99, 99"), ("1", 2))
    connection.executemany(REPLY, [("over", 99.0), ("now", 100.0), ("fresh", 101.0)])
    assert writer.rest() != 3600
    assert connection.execute("SELECT scope FROM replies").fetchall() == [("fresh",)]
    assert left(path) == 1
    connection.close()
    writer.close()


def test_long_conversations_go_fewer_at_a_time(path: Path) -> None:
    writer = sweeping_writer(path)
    fill(path, 10, 600)
    writer.rest()
    assert left(path) == 8
    writer.close()


def test_between_two_sweeps_nothing_is_done(path: Path) -> None:
    writer = sweeping_writer(path)
    assert writer.rest() == 3600
    fill(path, 10, 2)
    again = writer.rest()
    assert again is not None
    assert 3500 < again < 3600
    assert left(path) == 10
    writer.close()


def test_a_sweep_that_finds_the_file_locked_comes_back_later(path: Path) -> None:
    writer = sweeping_writer(path)
    fill(path, 10, 2)
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    assert writer.rest() == 60
    other.execute("COMMIT")
    other.close()
    writer._next_sweep = 0.0
    writer.rest()
    assert left(path) == 0
    writer.close()


class Asked:
    """A job of the writer's, and what became of it."""

    def __init__(self, within_s: float) -> None:
        self.deadline = time.monotonic() + within_s
        self.outcome = "nothing"

    def run(self, connection: apsw.Connection) -> None:
        self.outcome = "done"

    def refuse(self, error: Exception) -> None:
        self.outcome = str(error)

    def settle(self) -> None:
        pass


def test_who_waits_behind_a_lock_is_told_of_the_lock(path: Path) -> None:
    writer = sweeping_writer(path)
    late = [Asked(-1) for _ in range(3)]
    writer.serve([late[0]])
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    first = Asked(0.3)
    writer.serve([first])
    writer.serve([late[1]])
    other.close()
    done = Asked(10)
    writer.serve([done])
    writer.serve([late[2]])
    locked = "the store's file is locked by another process"
    busy = "the store was busy for too long"
    assert [job.outcome for job in (late[0], first, late[1])] == [busy, locked, locked]
    assert [job.outcome for job in (done, late[2])] == ["done", busy]
    writer.close()
