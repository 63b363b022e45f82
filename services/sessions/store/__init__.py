"""SQL: functions of a connection. Whatever an owner writes goes through ``fence``."""
