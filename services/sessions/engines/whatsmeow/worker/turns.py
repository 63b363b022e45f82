"""Encrypting and decrypting in turns, because whatsmeow does not see to that.

For either it reads the Signal session with a contact from its store, changes it and writes it back.
Where a message comes while one goes to the same contact, the later write undoes the earlier; then a
key is used twice, or is gone, and somebody cannot read what they were sent. whatsmeow tells its
logger when it begins to decrypt, and of each frame that goes out; there it is made to wait.
"""

import re
import threading
from collections import deque
from contextvars import ContextVar
from typing import Final

# Nothing that waits here may wait for ever: whatever holds its turn may have failed in silence.
ENCRYPTING: Final = 5.0
DECRYPTING: Final = 1.0
MOST: Final = 5000

# Whose turn it is in this thread, from which whatsmeow calls its logger.
encrypting: Final[ContextVar[object | None]] = ContextVar("encrypting", default=None)

_MESSAGE: Final = re.compile(r'^<message [^>]*? ?from="(?P<from>[^"]*)" id="(?P<id>[^"]*)"')
_ID: Final = re.compile(r'^<\w+[^>]*? id="(?P<id>[^"]*)"')
_PARTICIPANT: Final = re.compile(r' participant="(?P<participant>[^"<>]*@[^"<>]*)"')
_BEGINS: Final = re.compile(r"^Decrypting message from (?P<sender>\S+)")


class Turns:
    """Whose turn it is, in one session; first come, first served. For any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._whose: object | None = None
        # What has come and is not decrypted, in whatsmeow's order: who wrote it, and its id.
        self._come: deque[tuple[frozenset[str], str]] = deque(maxlen=MOST)
        self._reading: str | None = None

    def take(self, whose: object, *, at_most: float = DECRYPTING) -> None:
        """Return when nobody else has a turn, or after ``at_most`` seconds."""
        with self._changed:
            self._line.append(whose)
            self._changed.wait_for(
                lambda: self._whose is None and self._line[0] is whose, timeout=at_most
            )
            self._line.remove(whose)
            self._whose = whose

    def give(self, whose: object) -> None:
        """End a turn, if it has not ended."""
        with self._changed:
            if self._whose is whose:
                self._whose = None
                self._changed.notify_all()

    def waits(self, whose: object) -> bool:
        """Whether somebody stands in line."""
        with self._changed:
            return whose in self._line

    def received(self, frame: str) -> None:
        """A frame has come; if it is a message, it will be decrypted after those before it."""
        found = _MESSAGE.match(frame)
        if found is None:
            return
        named = _PARTICIPANT.findall(frame.partition("><")[0])
        with self._changed:
            self._come.append((frozenset([found["from"], *named]), found["id"]))

    def said(self, words: str) -> None:
        """whatsmeow has said this; if it begins to decrypt, it does so when it is its turn."""
        found = _BEGINS.match(words)
        if found is None:
            return
        id_ = self._next(found["sender"])
        if self._reading is not None:
            self.give(self._reading)
        self._reading = id_
        if id_ is not None:
            self.take(id_, at_most=ENCRYPTING)

    def sending(self, frame: str) -> None:
        """A frame goes out: what it took to make it, or to read what it answers, is stored."""
        if frame.startswith("<message"):
            mine = encrypting.get()
            if mine is not None:
                self.give(mine)
            return
        reading = self._reading
        if reading is None or not frame.startswith(("<receipt", "<ack")):
            return
        found = _ID.match(frame)
        if found is not None and found["id"] == reading:
            self.give(reading)

    def _next(self, sender: str) -> str | None:
        with self._changed:
            while self._come:
                who, id_ = self._come.popleft()
                if sender in who:
                    return id_
        return None
