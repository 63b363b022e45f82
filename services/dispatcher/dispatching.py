"""Dispatching: from instances that have something to send to commands for their sessions."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from services.dispatcher import settlement
from services.dispatcher.domain import pacing
from services.dispatcher.domain.pacing import Room
from services.dispatcher.metrics import DispatcherMetrics
from services.dispatcher.settlement import Freed
from services.dispatcher.store import claims, upkeep
from services.dispatcher.store.claims import Candidate
from shared.broker.port import Broker, Outgoing
from shared.broker.topology import COMMANDS, shard_queue
from shared.clock import Clock
from shared.contracts.commands import Transmission, Transmit
from shared.db.database import Database, HotConnection
from shared.errors import Transient
from shared.ids import new_id
from shared.log import get_logger
from shared.messaging.outbox import Relay, Stored
from shared.nudge import Nudge
from shared.pause import Pause
from shared.security.sealing import KeyRing

log = get_logger()

# One step looks at this many instances; the rest wait for the next, a few milliseconds later.
INSTANCES_A_STEP: Final = 64
# What a step claims for one instance at most, and for all: bounds the transaction and its locks.
CLAIM_LIMIT: Final = 512
# A crash of a session process leaves at most this many messages of an instance in doubt.
AT_MOST_IN_FLIGHT: Final = 256
# How long a published command may take to be handed over before it is published again.
STALE_AFTER: Final = timedelta(seconds=5)
SWEEP: Final = timedelta(seconds=1)
# A busy instance that another replica was at, or that had more than one claim's worth.
SOON: Final = timedelta(milliseconds=50)

# Instances that will not come back by themselves: what waits for them fails, and says why. Sending
# it after somebody has paired again, perhaps days later, would surprise everybody.
ENDED: Final = {
    "deleted": (
        "INSTANCE_DELETED",
        "The instance was deleted before the message could be sent.",
    ),
    "logged_out": (
        "INSTANCE_LOGGED_OUT",
        "The instance was logged out before the message could be sent; pair it and send again.",
    ),
    "banned": (
        "INSTANCE_BANNED",
        "WhatsApp banned the instance's number before the message could be sent.",
    ),
}


class Dispatching:
    """Claims what is due and publishes it. Any number of replicas may do so at once."""

    def __init__(
        self,
        *,
        database: Database,
        broker: Broker,
        relay: Relay,
        ring: KeyRing,
        clock: Clock,
        metrics: DispatcherMetrics,
        pause: Pause,
    ) -> None:
        self._database = database
        self._broker = broker
        self._relay = relay
        self._ring = ring
        self._clock = clock
        self._metrics = metrics
        self._pause = pause
        # How many instances are being claimed for at this moment.
        self.processing = 0
        self._nudge = Nudge()
        self._dirty: dict[UUID, None] = {}
        self._known: set[UUID] = set()
        # Instances whose last claim took all that it might, so that more may be waiting.
        self._backlog: set[UUID] = set()

    def look_at(self, instances: Iterable[UUID]) -> None:
        """Say that these instances may have something to send; many such nudges are one."""
        self._dirty.update(dict.fromkeys(instances))
        self._nudge.set()

    def go_on(self, freed: Freed) -> None:
        """Look at those that may send more now. Most have nothing else, and are left alone."""
        found = self._backlog.intersection(freed.instances).union(freed.unparked)
        if found:
            self.look_at(found)

    async def run(self) -> None:
        """Dispatch until cancelled; while paused, let everything wait where it is."""
        swept = float("-inf")
        while True:
            self._nudge.clear()
            try:
                if self._clock.monotonic() - swept >= SWEEP.total_seconds():
                    await self.sweep()
                    swept = self._clock.monotonic()
                busy = await self.step()
            except Transient as error:
                log.warning("dispatch_postponed", reason=error.message)
                await self._clock.sleep(SWEEP)
                continue
            self._metrics.loop_succeeded.labels("dispatching").set(self._clock.now().timestamp())
            if not busy:
                await self._nudge.wait(SOON if self._dirty and not self._pause.on else SWEEP)

    async def sweep(self) -> None:
        """Find every instance with something in line, told of or not, and repeat lost commands."""
        if self._pause.on:
            return
        async with self._database.hot() as connection:
            self._dirty.update(dict.fromkeys(await claims.with_ready_messages(connection)))
        now = self._clock.now()
        async with self._database.hot_tx() as connection:
            stale = await claims.stale_transmissions(
                connection, before=now - STALE_AFTER, ring=self._ring, now=now, limit=CLAIM_LIMIT
            )
        if stale:
            log.warning("transmissions_published_again", count=len(stale))
            await self.publish(stale)

    async def step(self) -> bool:
        """Claim for the instances nudged so far, publish, and say whether there is more to do."""
        instances = list(self._dirty)[:INSTANCES_A_STEP]
        if not instances or self._pause.on:
            return False
        for instance in instances:
            del self._dirty[instance]
        self.processing = len(instances)
        try:
            claimed = await self._claim(instances)
        except Transient:
            self._dirty.update(dict.fromkeys(instances))
            raise
        finally:
            self.processing = 0
        if claimed:
            self._metrics.claimed.inc(len(claimed))
            await self.publish(claimed)
        return bool(claimed)

    async def publish(self, claimed: Sequence[tuple[int, Transmission]]) -> None:
        """Publish transmissions, one command for each shard.

        A failure is left to the sweep: the rows say what has not been handed over.
        """
        by_shard: dict[int, list[Transmission]] = defaultdict(list)
        for shard, transmission in claimed:
            by_shard[shard].append(transmission)
        commands = [
            Outgoing(
                exchange=COMMANDS,
                routing_key=shard_queue(shard),
                body=Transmit(shard=shard, transmissions=tuple(items)).model_dump_json().encode(),
                message_id=str(new_id()),
                type=Transmit.TYPE,
            )
            for shard, items in by_shard.items()
        ]
        try:
            await self._broker.publish(commands)
        except Transient as error:
            log.warning("transmissions_not_published", count=len(claimed), reason=error.message)

    async def _claim(self, instances: Sequence[UUID]) -> list[tuple[int, Transmission]]:
        now = self._clock.now()
        told: list[Stored] = []
        async with self._database.hot_tx() as connection:
            unknown = set(instances) - self._known
            if unknown:
                await claims.ensure_pacing(connection, unknown)
                self._known |= unknown
            found = await claims.lock_candidates(connection, instances)
            # Another replica is at these; it may have looked before the news came, so look again.
            elsewhere = set(instances) - {candidate.instance_id for candidate in found}
            for candidate in found:
                if candidate.status in ENDED:
                    told += await self._give_up(connection, candidate)
            able = [one for one in found if one.status == "ready"]
            rooms = await self._rooms(connection, able, now=now)
            claimed = []
            if any(room.count for room in rooms.values()):
                claimed = await claims.claim_due(
                    connection,
                    [(instance, room.count) for instance, room in rooms.items() if room.count],
                    ring=self._ring,
                    now=now,
                )
        self._relay.wake(told)
        taken = Counter(item.instance_id for _, item in claimed)
        for instance, room in rooms.items():
            if room.count and taken[instance] < room.count:
                self._backlog.discard(instance)
            else:
                self._backlog.add(instance)
        full = [instance for instance in taken if instance in self._backlog]
        self._dirty.update(dict.fromkeys([*full, *elsewhere]))
        return claimed

    async def _rooms(
        self, connection: HotConnection, able: Sequence[Candidate], *, now: datetime
    ) -> dict[UUID, Room]:
        limits = [
            (one.instance_id, limit)
            for one in able
            for limit in pacing.limits(one.guard, zone=one.zone, now=now)
        ]
        used = await claims.usages(connection, limits, now=now) if limits else {}
        pauses = {one.instance_id: pacing.pauses(one.guard) for one in able}
        pausing = [instance for instance, wanted in pauses.items() if wanted is not None]
        last = await claims.last_transmissions(connection, pausing) if pausing else {}
        share = max(1, CLAIM_LIMIT // max(1, len(able)))
        rooms: dict[UUID, Room] = {}
        for one in able:
            room = pacing.room(
                used.get(one.instance_id, ()),
                in_flight=one.in_flight,
                # A pause begins when what is in flight has ended.
                at_most_in_flight=AT_MOST_IN_FLIGHT if pauses[one.instance_id] is None else 1,
                throttled_until=one.throttled_until,
                paused_until=pacing.paused_until(
                    pauses[one.instance_id], last.get(one.instance_id)
                ),
                quiet=pacing.quiet(one.guard, zone=one.zone),
                now=now,
            )
            rooms[one.instance_id] = replace(room, count=min(room.count, share))
        paced = [
            (instance, room.next_slot, room.cause)
            for instance, room in rooms.items()
            if room.next_slot is not None
        ]
        if paced:
            await claims.note_pace(connection, paced)
        return rooms

    async def _give_up(self, connection: HotConnection, candidate: Candidate) -> Sequence[Stored]:
        code, reason = ENDED[candidate.status]
        waiting = await upkeep.lock_waiting_of(connection, candidate.instance_id, limit=CLAIM_LIMIT)
        now = self._clock.now()
        freed = await settlement.fail(connection, waiting, code=code, reason=reason, now=now)
        return freed.told
