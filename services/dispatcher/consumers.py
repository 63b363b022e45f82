"""What the dispatcher does about each message it receives."""

from collections.abc import Sequence
from typing import TypeVar

from services.dispatcher import settlement
from services.dispatcher.dispatching import Dispatching
from services.dispatcher.store import inbound
from shared.clock import Clock
from shared.contracts.commands import Dispatch, ReceiptsReported, TransmissionsSettled
from shared.contracts.envelope import Emitted
from shared.contracts.events import (
    InstanceConnected,
    InstanceDisconnected,
    MessageEdited,
    MessageReceived,
    MessageRevoked,
)
from shared.contracts.model import Event
from shared.db.database import Database
from shared.messaging.outbox import Relay
from shared.security.sealing import KeyRing

EventT = TypeVar("EventT", bound=Event)


class Consumers:
    """One method for each type, each given all of a batch and working in one transaction."""

    def __init__(
        self,
        *,
        database: Database,
        dispatching: Dispatching,
        relay: Relay,
        ring: KeyRing,
        clock: Clock,
    ) -> None:
        self._database = database
        self._dispatching = dispatching
        self._relay = relay
        self._ring = ring
        self._clock = clock

    async def dispatch(self, commands: Sequence[Dispatch]) -> None:
        """Look at the instances that have something new."""
        self._dispatching.look_at(id_ for command in commands for id_ in command.instance_ids)

    async def transmissions_settled(self, commands: Sequence[TransmissionsSettled]) -> None:
        """Decide what becomes of messages whose hand-over has ended."""
        settled = [one for command in commands for one in command.settled]
        async with self._database.hot_tx() as connection:
            freed = await settlement.settle(
                connection,
                settled,
                ring=self._ring,
                now=self._clock.now(),
                jitter=settlement.jitter,
            )
        self._relay.wake(freed.told)
        self._dispatching.go_on(freed)

    async def receipts_reported(self, commands: Sequence[ReceiptsReported]) -> None:
        """Move messages forward."""
        receipts = [one for command in commands for one in command.receipts]
        async with self._database.hot_tx() as connection:
            freed = await settlement.receive(
                connection, receipts, ring=self._ring, now=self._clock.now()
            )
        self._relay.wake(freed.told)
        self._dispatching.go_on(freed)

    async def events(self, batch: Sequence[Emitted]) -> None:
        """Keep what was received and what became of it, and look at instances that come or go."""
        if received := _of(batch, MessageReceived):
            async with self._database.hot() as connection:
                await inbound.insert_received(connection, received, ring=self._ring)
        # After those: what is changed may have come in the same batch.
        if edited := _of(batch, MessageEdited):
            async with self._database.hot_tx() as connection:
                await inbound.note_edited(connection, edited, ring=self._ring)
        if revoked := _of(batch, MessageRevoked):
            async with self._database.hot_tx() as connection:
                await inbound.note_revoked(connection, revoked)
        self._dispatching.look_at(
            emitted.instance_id
            for emitted in batch
            if isinstance(emitted.event, InstanceConnected | InstanceDisconnected)
            and emitted.instance_id is not None
        )


def _of(batch: Sequence[Emitted], kind: type[EventT]) -> list[tuple[Emitted, EventT]]:
    """The events of one type, in their order."""
    return [(emitted, emitted.event) for emitted in batch if isinstance(emitted.event, kind)]
