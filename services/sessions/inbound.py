"""Inbound: what engines report, committed before anybody acknowledges it to WhatsApp."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from services.sessions import telling
from services.sessions.domain.lease import Lease
from services.sessions.engines.port import (
    EngineEvent,
    MessageReceived,
    MessageRevoked,
    Reaction,
    Refused,
    Stanza,
    StatusChanged,
)
from services.sessions.metrics import SessionsMetrics
from services.sessions.store import fence as fences
from services.sessions.store import handovers, inbound_media
from services.sessions.store import inbound as seen
from services.sessions.store.fence import Fence
from services.sessions.store.inbound_media import Announced
from services.sessions.supervisor import Session, Supervisor
from services.sessions.telling import Messages
from shared.clock import Clock
from shared.contracts.commands import Receipt, ReceiptsReported
from shared.contracts.content import Media
from shared.db.database import HotConnection
from shared.db.group_commit import GroupCommit
from shared.messaging import outbox
from shared.messaging.outbox import Stored
from shared.security.sealing import KeyRing

# What came for one session from its engine, with the session as it was then.
Arrived = tuple[Session, Stanza | StatusChanged]

# An engine message id, with the instance that it came to.
Key = tuple[UUID, str]

BATCHES: Final = 32
# When an unknown receipt was first seen need not be remembered for longer: no handover takes so
# long, and WhatsApp repeats what is not acknowledged.
FORGOTTEN: Final = timedelta(minutes=10)


class Inbound:
    """The sink of all engines.

    What comes together is committed together, across sessions and engines: one transaction with the
    check of the leases, the de-duplication, the events and the receipts.
    """

    def __init__(
        self,
        *,
        fence: Fence,
        ring: KeyRing,
        supervisor: Supervisor,
        clock: Clock,
        told: Callable[[Sequence[Stored]], None],
        media_came: Callable[[], None],
        metrics: SessionsMetrics,
    ) -> None:
        self._fence = fence
        self._ring = ring
        self._supervisor = supervisor
        self._clock = clock
        self._told = told
        self._media_came = media_came
        self._metrics = metrics
        self._unknown: dict[Key, datetime] = {}
        self._commits: GroupCommit[Sequence[Arrived], Sequence[bool]] = GroupCommit(
            self._commit, name="inbound", max_batch=BATCHES
        )

    def running(self) -> AbstractAsyncContextManager[object]:
        """Be able to take events for as long as the context is open."""
        return self._commits.running()

    async def sink(self, events: Sequence[EngineEvent]) -> Sequence[bool]:
        """Commit what engines report; for each, whether it may be acknowledged."""
        taken = [False] * len(events)
        arrived: list[Arrived] = []
        places: list[int] = []
        for place, event in enumerate(events):
            if not isinstance(event, Stanza | StatusChanged):
                taken[place] = await self._supervisor.handle(event)
                continue
            session = self._supervisor.session(event.instance_id)
            if session is not None:
                arrived.append((session, event))
                places.append(place)
        if arrived:
            flags = await self._commits.submit(arrived)
            for place, flag in zip(places, flags, strict=True):
                taken[place] = flag
        return taken

    async def _commit(self, batches: Sequence[Sequence[Arrived]]) -> Sequence[Sequence[bool]]:
        everything = [item for batch in batches for item in batch]
        now = self._clock.now()
        async with self._fence.tx() as connection:
            held = await fences.hold(connection, {session.lease for session, _ in everything})
            ours = [item for item in everything if item[0].lease in held]
            known, later = await self._messages(connection, ours, now=now)
            stanzas = [(session, event) for session, event in ours if isinstance(event, Stanza)]
            keys = {(event.instance_id, event.stanza_key) for _, event in stanzas}
            fresh = await seen.fresh(connection, keys, now=now) if keys else set()
            new = _once(stanzas, fresh)
            rows = [outbox.event(telling.emitted(session, event, known)) for session, event in new]
            files = [file for session, event in new if (file := _file(session, event)) is not None]
            if files:
                await inbound_media.announce(connection, files, ring=self._ring, now=now)
            receipts = _receipts(ours, known)
            if receipts:
                report = ReceiptsReported(receipts=tuple(receipts))
                rows.append(outbox.command(report, to="dispatcher"))
            stored = await outbox.add_hot(connection, "sessions", rows, now=now, ring=self._ring)
        if stored:
            self._told(stored)
        if files:
            self._media_came()
        self._metrics.inbound.labels("receipt").inc(len(receipts))
        self._metrics.inbound.labels("stanza").inc(len(fresh))
        return [[_taken(item, held, later) for item in batch] for batch in batches]

    async def _messages(
        self, connection: HotConnection, items: Sequence[Arrived], *, now: datetime
    ) -> tuple[Messages, set[Key]]:
        """The messages of ours that something is about, and what must come again.

        That are receipts of what nobody knows yet, because its handover has not ended.
        """
        keys = {
            _target(event)
            for _, event in items
            if isinstance(event, StatusChanged | Reaction | MessageRevoked)
        }
        if not keys:
            return {}, set()
        theirs = _handed_over(items)
        known = await handovers.messages_of(connection, keys | theirs.keys())
        known |= {key: known[ours] for ours, key in theirs.items() if ours in known}
        receipts = {_target(event) for _, event in items if isinstance(event, StatusChanged)}
        unknown = receipts - known.keys()
        if not unknown:
            return known, set()
        seen = {key: self._unknown.get(key, now) for key in unknown}
        later = await handovers.undecided(connection, seen)
        self._unknown = {
            key: at
            for key, at in self._unknown.items()
            if key not in unknown and now - at < FORGOTTEN
        } | {key: seen[key] for key in later}
        # Those whose handover ended since we looked for them.
        found = await handovers.messages_of(connection, unknown - later) if unknown - later else {}
        return {**known, **found}, later


def _taken(item: Arrived, held: set[Lease], later: set[Key]) -> bool:
    session, event = item
    if session.lease not in held:
        return False
    if not isinstance(event, StatusChanged):
        return True
    return (event.instance_id, event.engine_message_id) not in later


def _target(event: StatusChanged | Reaction | MessageRevoked) -> Key:
    about = event.engine_message_id if isinstance(event, StatusChanged) else event.target_id
    return event.instance_id, about


def _handed_over(items: Sequence[Arrived]) -> dict[Key, Key]:
    """Under which id a message was handed over, and under which WhatsApp tells of it."""
    return {
        (event.instance_id, event.client_message_id): _target(event)
        for _, event in items
        if isinstance(event, StatusChanged) and event.client_message_id is not None
    }


def _receipts(items: Sequence[Arrived], known: Messages) -> list[Receipt]:
    return [
        Receipt(
            message_id=message_id,
            instance_id=event.instance_id,
            kind=event.status,
            at=event.at,
            engine_message_id=event.engine_message_id,
            code=Refused.code if event.status == "failed" else None,
            detail=event.reason,
        )
        for _, event in items
        if isinstance(event, StatusChanged)
        and (message_id := known.get((event.instance_id, event.engine_message_id))) is not None
    ]


def _once(
    stanzas: Sequence[tuple[Session, Stanza]], fresh: set[tuple[UUID, str]]
) -> list[tuple[Session, Stanza]]:
    """What was not recorded before; the same stanza twice in one batch is one event."""
    new = []
    waiting = set(fresh)
    for session, event in stanzas:
        key = (event.instance_id, event.stanza_key)
        if key in waiting:
            waiting.remove(key)
            new.append((session, event))
    return new


def _file(session: Session, event: Stanza) -> Announced | None:
    """The file that a message comes with and that is fetched later."""
    media_id = telling.media_id_of(event)
    if media_id is None or not isinstance(event, MessageReceived) or event.media is None:
        return None
    content = event.content
    if not isinstance(content, Media):
        return None
    return Announced(
        id=media_id,
        tenant_id=session.instance.tenant_id,
        instance_id=event.instance_id,
        shard=session.lease.shard,
        engine_message_id=event.engine_message_id,
        handle=event.media,
        mime_type=content.mime_type,
        filename=content.filename,
        size=content.size,
    )
