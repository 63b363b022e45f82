"""Holding back what tells WhatsApp that something has arrived, until it is safe with us.

WhatsApp delivers a message again and again until the device confirms it. whatsmeow confirms by
itself: a message with a ``<receipt>`` once its handler has returned, a receipt with an ``<ack>``
at once. neonize's handler returns as soon as the event is in a queue, so what is lost with the
process would be confirmed and gone.

whatsmeow tells its logger of every frame, the ones that go out included, *before* they do, from
the goroutine that sends them and waiting until the logger returns. Ours is a function of this
process. So it can keep a confirmation from going out for as long as it likes: only that goroutine
waits. If the connection ends meanwhile, the confirmation ends with it, which is as it should be.

There is a second way to lose a message. Decrypting uses up its key, and whatsmeow stores that at
once. A process that dies between this and our commit finds the message delivered again and cannot
read it: whatsmeow takes it for a repeat, says so to its logger and nobody else, and confirms it.
Such a message is ``unreadable`` here until somebody has looked whether it was recorded. If it was
not, its sender's session is removed, so that whatsmeow asks for the message once more.

And a third: without its database whatsmeow cannot decrypt, takes the message for a broken one, asks
its sender for it five times within a second, and confirms it. So what says so is kept back as well,
and the connection is closed until the database is there again.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

Key = tuple[str, str]

# How many messages of one session may be on their way, and how many are remembered as done.
MOST: Final = 10_000
# Seconds until a confirmation goes out although whatsmeow has handed on nothing: some parts of
# the protocol are whatsmeow's own business, and it hands them on before it confirms them.
NOTHING_CAME: Final = 5.0
# Seconds after which one of which nothing waits may be forgotten, if there is need of room.
ABANDONED: Final = 600.0

# Attributes stand in alphabetical order, so whatever a sender may choose comes after these two.
_ID: Final = re.compile(r'^<(?P<tag>\w+)[^>]*? id="(?P<id>[^"]*)"')
_TYPE: Final = re.compile(r' type="(?P<type>[^"]*)"')
_IGNORED: Final = re.compile(
    r"^Ignoring message (?P<id>\S+) from (?P<sender>\S+)(?: in (?P<chat>[^\s:]\S*))?: "
)
_FAILED: Final = re.compile(r"^Error decrypting message (?P<id>\S+) from ")
# What the Go driver of PostgreSQL, and Go's network under it, say of a database that is away.
_AWAY: Final = re.compile(
    r"dial tcp|dial unix|connection re(?:fused|set)|broken pipe|bad connection|i/o timeout"
    r"|unexpected EOF|: EOF|pq: |sql: |context deadline exceeded"
)
_CONFIRMING: Final = frozenset({"", "inactive", "sender"})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that whatsmeow could not read because it had read it before."""

    message_id: str
    sender: str
    chat: str


@dataclass(slots=True)
class _Pending:
    """One message or receipt, come at ``since``.

    ``expected`` is how many events whatsmeow may make of it.
    """

    since: float
    expected: int = 0
    came: int = 0
    settled: int = 0
    recorded: bool = False
    unreadable: Unreadable | None = None
    asked: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing that has come of it waits to be committed or looked up."""
        return self.settled >= self.came and self.unreadable is None


class Holding:
    """What one session has been given and what of it may be confirmed. For any thread."""

    def __init__(
        self,
        *,
        ask: Callable[[Unreadable], None],
        nothing_came: float = NOTHING_CAME,
        abandoned: float = ABANDONED,
        most: int = MOST,
    ) -> None:
        self._ask = ask
        self._nothing_came = nothing_came
        self._changed = threading.Condition()
        self._pending: OrderedDict[Key, _Pending] = OrderedDict()
        self._done: OrderedDict[Key, None] = OrderedDict()
        self._abandoned = abandoned
        self._most = most
        self._full = False
        self._over = False
        self._undecrypted: set[str] = set()

    def received(self, frame: str) -> bool:
        """WhatsApp has sent a frame; whatsmeow has not looked at it yet.

        False if there is no room to remember it: it will not be confirmed, nor will what comes
        after it, so the connection must be closed, and WhatsApp delivers it again at the next.
        """
        tag = _tag(frame)
        if tag == "message":
            # What the phone tells its devices is whatsmeow's business.
            ours = 'category="peer"' not in frame.partition(' from="')[0]
            count = frame.count("<enc ") if ours else 0
        elif tag == "receipt":
            count = max(1, frame.count("<user "))
        else:
            return True
        key = _key(tag, frame)
        if key is None or count == 0:
            return True
        with self._changed:
            if key not in self._pending and not self._has_room():
                self._full = True
                return False
            self._pending.setdefault(key, _Pending(since=monotonic())).expected += count
            self._pending.move_to_end(key)
        return True

    def ignored(self, words: str) -> None:
        """whatsmeow has said this about a message; perhaps that it could not read it again."""
        found = _IGNORED.match(words)
        if found is None:
            return
        sender = found["sender"]
        with self._changed:
            pending = self._pending.get(("message", found["id"]))
            if pending is not None:
                pending.came += 1
                pending.settled += 1
                pending.unreadable = Unreadable(found["id"], sender, found["chat"] or sender)

    def failed(self, words: str) -> bool:
        """whatsmeow has said this; whether it means that a message fell victim to the database."""
        found = _FAILED.match(words)
        if found is None or _AWAY.search(words) is None:
            return False
        with self._changed:
            self._undecrypted.add(found["id"])
        return True

    def came(self, key: Key) -> None:
        """whatsmeow has handed on an event."""
        with self._changed:
            pending = self._pending.get(key)
            if pending is not None:
                pending.came += 1

    def settled(self, key: Key, *, recorded: bool) -> None:
        """An event is committed, or it is nobody's business and there is nothing to commit."""
        with self._changed:
            pending = self._pending.get(key)
            if pending is not None:
                pending.settled += 1
                pending.recorded = pending.recorded or recorded
                self._changed.notify_all()

    def known(self, message_id: str) -> None:
        """A message that could not be read was recorded earlier."""
        with self._changed:
            pending = self._pending.get(("message", message_id))
            if pending is not None:
                pending.unreadable = None
                self._changed.notify_all()

    def sending(self, frame: str) -> None:
        """A frame is about to go out: return when it may. Blocks the calling thread."""
        key = confirmed(frame)
        if key is None:
            self._keep_back(frame)
            return
        with self._changed:
            since = monotonic()
            while not self._over and not self._may_go(key, since):
                self._changed.wait(self._nothing_came)
            self._pending.pop(key, None)
            self._done[key] = None
            while len(self._done) > self._most:
                self._done.popitem(last=False)

    def _keep_back(self, frame: str) -> None:
        """Whatever would tell WhatsApp that a message came which was not decrypted."""
        tag = _tag(frame)
        if tag not in {"receipt", "ack"}:
            return
        key = _key(tag, frame)
        with self._changed:
            while key is not None and key[1] in self._undecrypted and not self._over:
                self._changed.wait()

    def end(self) -> None:
        """The connection is gone: whatever waits may go, to nowhere."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def waiting(self) -> int:
        """How many have come that are not confirmed."""
        with self._changed:
            return len(self._pending)

    def _has_room(self) -> bool:
        if len(self._pending) < self._most:
            return True
        key, oldest = next(iter(self._pending.items()))
        # What whatsmeow never confirms, for a reason of its own, must not fill it in the end.
        if oldest.idle and monotonic() - oldest.since >= self._abandoned:
            del self._pending[key]
        return len(self._pending) < self._most

    def _may_go(self, key: Key, since: float) -> bool:
        pending = self._pending.get(key)
        if pending is None:
            return not self._full
        if pending.settled < pending.came:
            return False
        if pending.unreadable is not None and not pending.recorded and key not in self._done:
            if not pending.asked:
                pending.asked = True
                self._ask(pending.unreadable)
            return False
        return pending.came >= pending.expected or monotonic() - since >= self._nothing_came


def confirmed(frame: str) -> Key | None:
    """What a frame of ours confirms to WhatsApp: a message, a receipt, or nothing."""
    tag = _tag(frame)
    if tag == "receipt":
        found = _TYPE.search(frame)
        if (found["type"] if found else "") not in _CONFIRMING:
            return None
        return _key("message", frame)
    if tag == "ack" and ' class="receipt"' in frame and ' error="' not in frame:
        return _key("receipt", frame)
    return None


def outgoing_message(frame: str) -> str | None:
    """The id under which a frame of ours sends a message."""
    key = _key("message", frame) if _tag(frame) == "message" else None
    return key[1] if key else None


def _tag(frame: str) -> str:
    return frame[1 : frame.find(" ")] if frame.startswith("<") else ""


def _key(kind: str, frame: str) -> Key | None:
    found = _ID.match(frame)
    return (kind, found["id"]) if found else None
