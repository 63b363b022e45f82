"""What a session has been given of late, and whether that is committed by now."""

import asyncio
from collections import OrderedDict
from typing import Final

MOST: Final = 10_000


class Arrivals:
    """The latest stanzas, by the message id at the end of their keys."""

    def __init__(self) -> None:
        self._committed: OrderedDict[str, asyncio.Event] = OrderedDict()

    def expect(self, stanza_key: str) -> None:
        """A stanza waits to be committed."""
        self._committed.setdefault(_id(stanza_key), asyncio.Event())
        while len(self._committed) > MOST:
            self._committed.popitem(last=False)

    def commit(self, stanza_key: str) -> None:
        """It is committed."""
        event = self._committed.get(_id(stanza_key))
        if event is not None:
            event.set()

    async def committed(self, message_id: str) -> bool:
        """Return true once a message is committed, false at once if none like it has come."""
        event = self._committed.get(message_id)
        if event is None:
            return False
        await event.wait()
        return True


def _id(stanza_key: str) -> str:
    return stanza_key.rpartition("|")[2]
