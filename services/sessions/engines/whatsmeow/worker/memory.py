"""What a worker remembers of each session, within bounds, to spare questions and to tell more.

None of it is needed to be right: whatever was forgotten is asked again, or left out.
"""

from collections import OrderedDict
from typing import Final, Generic, TypeVar
from weakref import WeakKeyDictionary

from services.sessions.engines.whatsmeow.worker.shapes import Client

K = TypeVar("K")
V = TypeVar("V")

# A message: its chat, who wrote it (empty for the account itself), and its id. Ids are made by
# who writes, so an id alone would let anybody answer for somebody else's message.
Named = tuple[str, str, str]

PEOPLE: Final = 2000
GROUPS: Final = 500
POLLS: Final = 200
QUOTES: Final = 200


class Recent(Generic[K, V]):
    """A mapping that forgets what was not used for longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """What was kept under ``key``, if it still is."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key]

    def keep(self, key: K, value: V) -> None:
        """Keep ``value`` under ``key``, and forget the oldest if there are too many."""
        self._items[key] = value
        self._items.move_to_end(key)
        while len(self._items) > self._limit:
            self._items.popitem(last=False)

    def __len__(self) -> int:
        return len(self._items)


class Memory:
    """What is remembered of one session; another account is never told any of it.

    ``phones`` and ``lids`` are the two addresses of a person, without their servers. ``by_lid``
    says of a group whether its members are addressed by private id. ``polls`` are the names of a
    poll's options, ``quotes`` messages as they can be quoted, serialized. ``own`` are the
    account's addresses.
    """

    def __init__(self) -> None:
        self.own: tuple[str, ...] = ()
        self.phones: Recent[str, str] = Recent(PEOPLE)
        self.lids: Recent[str, str] = Recent(PEOPLE)
        self.by_lid: Recent[str, bool] = Recent(GROUPS)
        self.polls: Recent[Named, tuple[str, ...]] = Recent(POLLS)
        self.quotes: Recent[Named, bytes] = Recent(QUOTES)

    def meet(self, *, phone: str, lid: str) -> None:
        """Remember that these are one person."""
        self.phones.keep(lid, phone)
        self.lids.keep(phone, lid)


# A memory lives as long as its client, and there is one of each in a worker.
_memories: Final[WeakKeyDictionary[Client, Memory]] = WeakKeyDictionary()


def memory_of(client: Client) -> Memory:
    """What is remembered of this client's session."""
    found = _memories.get(client)
    if found is None:
        found = _memories[client] = Memory()
    return found
