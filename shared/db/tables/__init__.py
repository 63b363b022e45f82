"""Every table, a module and a PostgreSQL schema for each service that owns some.

Importing this package registers them all with ``Base.metadata``, which is what migrations compare.
"""

from shared.db.tables import dispatcher, gateway, sessions, stats, webhooks
from shared.db.tables.base import Base

__all__ = ["Base", "dispatcher", "gateway", "sessions", "stats", "webhooks"]
