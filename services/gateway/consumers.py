"""What the gateway keeps: events, for whoever was away, and what nobody could process."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from services.gateway.domain.dead_letters import Letter, letters, why
from services.gateway.metrics import GatewayMetrics
from services.gateway.store import dead_letters, events
from services.gateway.store.dead_letters import DeadLetter
from services.gateway.store.events import NewEvent
from shared.broker.dead import Death, death_of
from shared.broker.port import Incoming
from shared.broker.topology import DEAD_ENDING, DELIVERY_LIMIT
from shared.clock import Clock
from shared.contracts.envelope import BATCH, Carried
from shared.db.database import Database
from shared.security.sealing import KeyRing


class Consumers:
    """``logged`` is called after events were added to the log."""

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        metrics: GatewayMetrics,
        logged: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._ring = ring
        self._metrics = metrics
        self._logged = logged

    async def events(self, batch: Sequence[Carried]) -> None:
        """Add a batch to the log, all or nothing; those that are in it already stay."""
        await events.append(
            self._database,
            self._ring,
            [
                NewEvent(
                    id=event.id,
                    tenant_id=event.tenant_id,
                    instance_id=event.instance_id,
                    type=event.name,
                    time=event.time,
                    body=event.encoded(),
                )
                for event in batch
            ],
        )
        self._metrics.events_logged.inc(len(batch))
        await self._logged()


class KeepDeadLetters:
    """Takes dead letters out of the broker's queues and into a table, where they can be handled.

    A letter that comes again, because we died between commit and acknowledgement, is there already.
    """

    def __init__(self, *, database: Database, ring: KeyRing, clock: Clock) -> None:
        self._database = database
        self._ring = ring
        self._clock = clock

    async def keep(self, messages: Sequence[Incoming]) -> None:
        """Keep all of these, or raise."""
        found = {
            letter.id: (letter, death_of(message))
            for message in messages
            for letter in letters(
                queue=message.queue.removesuffix(DEAD_ENDING),
                # A header may hold what a column of text cannot.
                type_=message.type.replace("\0", ""),
                message_id=message.message_id,
                batch=message.content_type == BATCH,
                body=message.body,
            )
        }
        named = {instance for letter, _ in found.values() for instance in letter.instances}
        async with self._database.tx() as tx:
            owners = await dead_letters.tenants_of(tx, named)
            await dead_letters.keep(
                tx, [self._sealed(letter, death, owners) for letter, death in found.values()]
            )

    def _sealed(
        self, letter: Letter, death: Death, owners: Mapping[UUID, UUID]
    ) -> tuple[DeadLetter, bytes]:
        kept = self._kept(letter, death, owners)
        place = dead_letters.place(kept.id, kept.tenant_id)
        return kept, self._ring.seal(letter.body, place)

    def _kept(self, letter: Letter, death: Death, owners: Mapping[UUID, UUID]) -> DeadLetter:
        known = [instance for instance in letter.instances if instance in owners]
        # What an instance says counts for more than what a body says of itself.
        tenants = {owners[instance] for instance in known} or letter.tenants
        alone = len(known) == len(letter.instances) == 1
        died_at = death.at or self._clock.now()
        return DeadLetter(
            id=letter.id,
            queue=letter.queue,
            message_id=letter.message_id,
            kind=letter.kind,
            type=letter.type,
            tenant_id=next(iter(tenants)) if len(tenants) == 1 else None,
            instance_id=known[0] if alone else None,
            reason=death.reason,
            why=why(letter, reason=death.reason, tries=DELIVERY_LIMIT),
            size=len(letter.body),
            times=1,
            first_died_at=died_at,
            died_at=died_at,
        )
