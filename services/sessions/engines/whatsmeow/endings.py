"""How a connection ends: with its session, or to be made anew."""

from services.sessions.engines.port import Ending, LoggedOut
from services.sessions.engines.whatsmeow.tunnels import Way


class Over(Exception):
    """The session has ended; ``event`` says how, ``None`` if nobody is to be told by us."""

    def __init__(self, event: Ending | None, *, erased: bool = False) -> None:
        super().__init__()
        self.event = event
        self.erased = erased or isinstance(event, LoggedOut)


class Trouble(Exception):
    """The connection is not what it should be; it is to be made anew, perhaps after a while."""

    def __init__(self, reason: str, *, way: Way | None = None, at_once: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.way = way
        self.at_once = at_once
