"""The SQLite file: how to know it for ours, its tables, and its way from release to release.

`application_id` in the file's header says that it is ours, `user_version` how many of
`MIGRATIONS` it has been through. A file of another program, of a newer release or with damage is
refused before anything is written to it (https://www.sqlite.org/fileformat2.html section 1.3).
"""

import time
from typing import Final

import apsw

from gateway.errors import StoreUnavailable

APPLICATION_ID: Final = 0x63686777  # "chgw"

# Times are seconds since the epoch. `length` is the number of messages, so the newest one's
# `seq`: the newest N are a range of the index, however long the conversation is.
_FIRST: Final = """
CREATE TABLE conversations (
    number     INTEGER PRIMARY KEY,
    tenant     TEXT NOT NULL,
    dialect    TEXT NOT NULL,
    id         TEXT NOT NULL,
    public_id  TEXT NOT NULL UNIQUE,
    owner      TEXT,
    subject    TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    length     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, dialect, id)
) STRICT;
CREATE INDEX conversations_by_update ON conversations (updated_at);
CREATE TABLE messages (
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    id           TEXT NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
    text         TEXT NOT NULL,
    created_at   REAL NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('complete', 'partial')),
    UNIQUE (conversation, seq)
) STRICT;
"""

# `terms` is JSON (see `forms.py`), `read_length` counts messages. What is there already counts as
# read: nobody was told otherwise.
_STATE: Final = """
ALTER TABLE conversations ADD COLUMN status TEXT NOT NULL DEFAULT 'open'
    CHECK (status IN ('open', 'completed', 'failed'));
ALTER TABLE conversations ADD COLUMN read_length INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN terms TEXT NOT NULL DEFAULT '';
UPDATE conversations SET read_length = length;
CREATE INDEX conversations_by_owner ON conversations (tenant, dialect, owner, updated_at);
"""

# The limits' state. Times are the machine's monotonic clock, in seconds.
_LIMITS: Final = """
CREATE TABLE limit_levels (
    name   TEXT PRIMARY KEY,
    amount REAL NOT NULL,
    at     REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX limit_levels_by_time ON limit_levels (at);
CREATE TABLE limit_slots (
    name   TEXT NOT NULL,
    holder TEXT NOT NULL,
    until  REAL NOT NULL,
    PRIMARY KEY (name, holder)
) STRICT, WITHOUT ROWID;
"""

# `turn` is the token of the newest lease, `committed` of the newest that was written under, and
# `leased_until` the machine's monotonic clock. `calls` is JSON, `replies.expires_at` as above.
_TURNS: Final = """
ALTER TABLE conversations ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN committed INTEGER NOT NULL DEFAULT -1;
ALTER TABLE conversations ADD COLUMN leased_until REAL NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN calls TEXT;
CREATE TABLE replies (
    number       INTEGER PRIMARY KEY,
    tenant       TEXT NOT NULL,
    scope        TEXT NOT NULL UNIQUE,
    body         TEXT NOT NULL,
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    turn         INTEGER NOT NULL,
    expires_at   REAL NOT NULL,
    done         INTEGER NOT NULL DEFAULT 0,
    record       BLOB
) STRICT;
CREATE INDEX replies_by_conversation ON replies (conversation);
CREATE INDEX replies_by_expiry ON replies (expires_at);
CREATE INDEX replies_by_tenant ON replies (tenant, number);
"""

# A step that a release has shipped is never changed; the next one is added behind it.
MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _STATE, _LIMITS, _TURNS)
VERSION: Final = len(MIGRATIONS)

_CHECK_S: Final = 0.25
_CHECK_STEPS: Final = 10_000


def examine(connection: apsw.Connection) -> int:
    """The number of migrations that the file has been through; 0 for an empty one.

    Raises `StoreUnavailable` for a file that must not be touched. Writes nothing.
    """
    with connection:  # one snapshot, whatever another process is making of the file
        application = connection.pragma("application_id")
        version = int(connection.pragma("user_version"))
        empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    if application == 0 and version == 0 and empty:
        return 0
    if application != APPLICATION_ID:
        raise StoreUnavailable(
            f"{connection.filename} belongs to another program; set store.url to another file"
        )
    if version > VERSION:
        raise StoreUnavailable(
            f"{connection.filename} has schema {version} and this release knows up to {VERSION}; "
            "run the newer release, or set store.url to another file"
        )
    return version


def check_structure(connection: apsw.Connection) -> None:
    """Looks for damage for at most a quarter of a second; raises `CorruptError` for what it sees.

    That is long enough for some hundred megabytes. Writes nothing.
    """
    until = time.monotonic() + _CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > until, _CHECK_STEPS)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchall()
    except apsw.InterruptError:
        return
    finally:
        connection.set_progress_handler(None)
    if found != [("ok",)]:
        raise apsw.CorruptError("quick_check found damage")


def migrate(connection: apsw.Connection) -> None:
    """Brings the file to `VERSION`, all or none; another process waits and finds it done."""
    if examine(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = int(connection.pragma("user_version"))
        for step in MIGRATIONS[done:]:
            connection.execute(step)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", VERSION)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
