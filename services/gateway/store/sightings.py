"""What is worth knowing and changes nothing, such as a failed login: counted, and written late.

Strangers cause it as fast as they like, so it may neither slow an answer nor fill a table. Alike
sightings become one entry that says how many there were. Of different ones only so many are kept
in an hour by each process; the rest are counted by what they were. A crash loses what was seen in
the last few seconds.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from services.gateway.domain.auditing import STRANGER, Entry
from services.gateway.store import audit
from shared.clock import Clock
from shared.contracts.envelope import Emitted
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import Transient
from shared.ids import new_id
from shared.log import get_logger
from shared.messaging import outbox

log = get_logger()

# Entries that say all that is known, in an hour: of one organization, and of all together.
TENANT_HOURLY: Final = 60
HOURLY: Final = 600
# How long alike ones are gathered after one of them was written, and how long the nameless rest.
GATHERED: Final = timedelta(minutes=1)
# Events that may wait to be written, or are remembered so as not to be told again.
_MOST_EVENTS: Final = 1_000
# Entries about the rest that are written at once; what is left is told of as nobody's.
_MOST_SORTS: Final = 20
_HOUR: Final = timedelta(hours=1)

_Like = tuple[object, ...]
_Sort = tuple[UUID | None, str]


class Sightings:
    """Remembers what was seen until it is written. ``told`` is called when events were added."""

    def __init__(self, *, database: Database, clock: Clock, told: Callable[[], None]) -> None:
        self._database = database
        self._clock = clock
        self._told = told
        self._seen: dict[_Like, Entry] = {}
        self._rest: Counter[_Sort] = Counter()
        self._events: dict[UUID, Emitted] = {}
        self._written: dict[_Like, datetime] = {}
        self._rest_written: datetime | None = None
        self._announced: dict[UUID, datetime] = {}
        self._spent: Counter[UUID | None] = Counter()
        self._spent_since = clock.now()

    def note(self, entry: Entry, event: Emitted | None = None) -> None:
        """Something was seen. Its ``event``, if it has any, is told once, however often it is."""
        self._keep(entry)
        if event is None or event.id in self._announced or len(self._announced) >= _MOST_EVENTS:
            return
        self._announced[event.id] = self._clock.now()
        self._events[event.id] = event

    @asynccontextmanager
    async def lasting(self) -> AsyncIterator[None]:
        """On leaving, what is still remembered is written, if it can be."""
        try:
            yield
        finally:
            try:
                await self.write(everything=True)
            except Transient as error:
                log.warning("sightings_lost", reason=error.message)

    async def write(self, *, everything: bool = False) -> int:
        """Write what is due, in one transaction; returns how many entries. Raises ``Transient``.

        On failure all of it stays remembered.
        """
        now = self._clock.now()
        self._forget(now)
        due = {
            like: entry
            for like, entry in self._seen.items()
            if everything or like not in self._written
        }
        rest: Counter[_Sort] = Counter()
        if self._rest and (everything or self._rest_written is None):
            rest, self._rest = self._rest, rest
        events, self._events = self._events, {}
        for like in due:
            del self._seen[like]
        try:
            await self._write([*due.values(), *_folded(rest, now)], list(events.values()), now)
        except BaseException:
            for entry in due.values():
                self._keep(entry, paid=True)
            self._rest += rest
            self._events |= events
            raise
        self._written |= dict.fromkeys(due, now)
        if rest:
            self._rest_written = now
        return len(due) + len(rest)

    async def _write(self, entries: list[Entry], events: list[Emitted], now: datetime) -> None:
        if not entries and not events:
            return
        async with self._database.tx() as tx:
            await audit.add(tx, *entries)
            await outbox.add(tx, GatewayOutboxRow, map(outbox.event, events), now=now)
        if events:
            self._told()

    def _keep(self, entry: Entry, *, paid: bool = False) -> None:
        like = _likeness(entry)
        seen = self._seen.get(like)
        if seen is not None:
            self._seen[like] = replace(seen, times=seen.times + entry.times)
            return
        if not paid:
            self._begin_hour(self._clock.now())
            if self._spent.total() >= HOURLY or self._spent[entry.tenant_id] >= TENANT_HOURLY:
                self._rest[entry.tenant_id, entry.action] += entry.times
                return
            self._spent[entry.tenant_id] += 1
        self._seen[like] = entry

    def _begin_hour(self, now: datetime) -> None:
        if now - self._spent_since >= _HOUR:
            self._spent_since = now
            self._spent.clear()

    def _forget(self, now: datetime) -> None:
        """Forget what is too long ago to matter."""
        self._written = {like: at for like, at in self._written.items() if now - at < GATHERED}
        self._announced = {id_: at for id_, at in self._announced.items() if now - at < _HOUR}
        if self._rest_written is not None and now - self._rest_written >= GATHERED:
            self._rest_written = None


def _likeness(entry: Entry) -> _Like:
    return (
        entry.tenant_id,
        entry.action,
        entry.actor,
        entry.resource_type,
        entry.resource_id,
        entry.address,
    )


def _folded(rest: Counter[_Sort], now: datetime) -> list[Entry]:
    """Entries about what there was no room for: so many times this, of that organization."""
    sorts: Counter[_Sort] = Counter(dict(rest.most_common(_MOST_SORTS)))
    for (_, action), times in rest.most_common()[_MOST_SORTS:]:
        sorts[None, action] += times
    return [
        Entry(
            id=new_id(),
            at=now,
            tenant_id=tenant_id,
            actor=STRANGER,
            action=action,
            resource_type="unlisted",
            times=times,
        )
        for (tenant_id, action), times in sorts.items()
    ]
