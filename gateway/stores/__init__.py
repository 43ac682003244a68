"""Where conversations are kept, behind `ports.ConversationStore`: in memory, or in a SQLite file.

Each look-up names tenant, dialect and id together, so a foreign conversation is an unknown one.
"""

from gateway.stores.memory import MemoryStore
from gateway.stores.sqlite import SqliteStore

__all__ = ["MemoryStore", "SqliteStore"]
