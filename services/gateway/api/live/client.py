"""One live client: what it may see, what it wants, and what it has not taken yet."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from engineio.packet import Packet

from services.gateway.api.live.wire import Backlog
from services.gateway.api.tail import Tail
from services.gateway.domain.event_names import Selection
from services.gateway.domain.interest import Interest
from services.gateway.domain.principal import Principal, Scope, scope_of
from services.gateway.domain.rooms import Room, rooms_of
from services.gateway.store import events
from services.gateway.store.events import LoggedEvent, SealedEvent
from shared.db.database import Database
from shared.errors import Transient
from shared.security.sealing import KeyRing


class Leaving(StrEnum):
    """Why a client was sent away; what it is told in ``closing``."""

    EXPIRED = "CREDENTIAL_EXPIRED"
    REVOKED = "CREDENTIAL_REVOKED"
    CHANGED = "SCOPE_CHANGED"
    SLOW = "TOO_SLOW"
    CHATTY = "TOO_MANY_MESSAGES"
    SILENT = "NOT_AUTHENTICATED"
    UNAVAILABLE = "UNAVAILABLE"
    RESTARTING = "RESTARTING"


class Client:
    """Follows the log for somebody who is connected.

    Up to ``position`` it has been told everything that it may see and wants. Until that is where
    all others are it reads the log by itself, at the speed at which it takes what it reads.
    ``leave`` is called, once, when it has to be sent away; it may not wait.
    """

    PORTION: Final = 200
    # Seconds in which a client that catches up has to take something.
    PATIENCE: Final = 30.0

    def __init__(
        self,
        *,
        sid: str,
        eio_sid: str,
        token: str,
        expires_at: datetime | None,
        principal: Principal,
        interest: Interest,
        backlog: Backlog,
        most_events: int,
        most_bytes: int,
        packet_of: Callable[[LoggedEvent], Packet],
        cursor_packet: Callable[[int], Packet],
        leave: Callable[["Client", Leaving], None],
        connected_at: float,
    ) -> None:
        self.sid = sid
        self.eio_sid = eio_sid
        self.token = token
        self.expires_at = expires_at
        self.principal = principal
        self.scope: Scope = scope_of(principal)
        self.interest = interest
        self.backlog = backlog
        self.position = 0
        self.sent = 0
        self.connected_at = connected_at
        self.told_at = connected_at
        self.leaving: Leaving | None = None
        self.asked: list[float] = []
        self.joined = False
        self._rooms = rooms_of(self.scope)
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._packet_of = packet_of
        self._cursor_packet = cursor_packet
        self._leave = leave
        self._live = False
        self._gone = False

    @property
    def _stays(self) -> bool:
        return self.leaving is None and not self._gone

    @property
    def tenant_id(self) -> UUID:
        """Whose events."""
        return self.scope.tenant_id

    @property
    def rooms(self) -> frozenset[Room]:
        """Where it stands: by its scope alone, whatever it wants."""
        return self._rooms

    def hear(self, event: LoggedEvent) -> None:
        """Be told the next event of the log, unless it is still catching up."""
        if self._live and event.sequence > self.position:
            self._tell(event)

    def miss(self, event: SealedEvent) -> None:
        """Leave rather than go on behind an event that it wants: its cursor would be past it."""
        wanted = self.interest.takes(event.type, event.instance_id)
        if wanted and self._live and event.sequence > self.position:
            self.send_away(Leaving.UNAVAILABLE)

    def go_live(self, position: int) -> None:
        """Hear from here on; everything before has been told or was not asked for."""
        self.position = position
        self._live = True

    async def catch_up(self, database: Database, ring: KeyRing, tail: Tail) -> None:
        """Read what is after ``position``, then go on with all others."""
        try:
            while self._stays:
                through = tail.position
                async with database.tx() as tx:
                    page = await events.page(
                        tx,
                        self.scope,
                        Selection(),
                        ring=ring,
                        after=self.position,
                        limit=self.PORTION,
                        through=through,
                    )
                for event in page.events:
                    await self._room_for(event)
                    self._tell(event)
                if len(page.events) < self.PORTION:
                    self.position = max(self.position, through)
                # Nothing is awaited between this comparison and going live.
                if self.position >= tail.position:
                    self._live = True
                    self.tell_cursor(tail)
                    return
        except Transient:
            self.send_away(Leaving.UNAVAILABLE)
        except TimeoutError:
            self.send_away(Leaving.SLOW)

    def send(self, packet: Packet) -> None:
        """Put something into its backlog, or send it away if that is full already."""
        if not self._stays:
            return
        if not self._fits(len(packet.data)):
            self.send_away(Leaving.SLOW)
            return
        self.backlog.put_nowait(packet)

    def tell_cursor(self, tail: Tail) -> None:
        """Say up to where it has been told everything; not while it catches up."""
        if self._live:
            self.position = max(self.position, tail.position)
            self.send(self._cursor_packet(self.position))

    def send_away(self, why: Leaving) -> None:
        """Let it be sent away. What waits for it goes at once: it is what fills the memory."""
        if self.leaving is None:
            self.leaving = why
            self.backlog.drop()
            self._leave(self, why)

    def gone(self) -> None:
        """It has left by itself: nothing that is under way for it need go on."""
        self._gone = True
        self.backlog.drop()

    def _tell(self, event: LoggedEvent) -> None:
        self.position = event.sequence
        if self._stays and self.interest.takes(event.type, event.instance_id):
            self.sent += 1
            self.send(self._packet_of(event))

    async def _room_for(self, event: LoggedEvent) -> None:
        """Wait until it has taken so much that there is room. Raises ``TimeoutError``."""
        while self._stays and not self._fits(2 * len(event.body)):
            async with asyncio.timeout(self.PATIENCE):
                await self.backlog.moved()

    def _fits(self, size: int) -> bool:
        if not self.backlog.qsize():
            return True
        return (
            self.backlog.qsize() < self._most_events
            and self.backlog.used + size <= self._most_bytes
        )
