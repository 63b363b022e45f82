"""The address of whatsmeow's store, for the Go library that it speaks to PostgreSQL with."""

from datetime import timedelta
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

SCHEMA: Final = "whatsmeow"
# What lib/pq and PostgreSQL's own clients call alike; others of theirs it does not know. A host
# stands here when it is the folder of a socket.
_SHARED: Final = frozenset(
    {"host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout"}
)
# Every session has a pool of its own, which keeps two connections for ever. PostgreSQL ends them
# when they have not been used for that long; the pool then makes new ones as they are needed.
IDLE: Final = timedelta(seconds=10)
STATEMENT: Final = timedelta(seconds=30)


def store_url(database_url: str, *, role: str) -> str:
    """The same database, acting as ``role``, with whatsmeow's schema in the place of ``public``.

    A secret: never in a log, in an environment or among the arguments of a process.
    """
    parts = urlsplit(database_url)
    given = {name: value for name, value in parse_qsl(parts.query) if name in _SHARED}
    query = {
        # Like everybody else here, and unlike lib/pq: encrypted if the server can.
        "sslmode": "prefer",
        "connect_timeout": "5",
        **given,
        "search_path": SCHEMA,
        "role": role,
        "application_name": "waypost-whatsmeow",
        "statement_timeout": _milliseconds(STATEMENT),
        "idle_session_timeout": _milliseconds(IDLE),
    }
    return urlunsplit(("postgres", parts.netloc, parts.path, urlencode(query), ""))


def _milliseconds(time: timedelta) -> str:
    return str(round(time / timedelta(milliseconds=1)))
