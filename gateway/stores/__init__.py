"""Where conversations are kept, behind `ports.ConversationStore`: in memory, in a SQLite file, or
on a Valkey or Redis server (whose client takes long to import, so `valkey.py` is not named here).

Each look-up names tenant, dialect and id together, so a foreign conversation is an unknown one.
"""

from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import SqliteStore

__all__ = ["MemoryStore", "SqliteStore"]
