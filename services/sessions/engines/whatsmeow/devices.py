"""Which device an instance is, and the keys of that in whatsmeow's own tables."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from services.sessions.domain.lease import Lease
from services.sessions.engines.port import Opening
from services.sessions.store import fence as fences
from services.sessions.store.fence import HELD, Fence, claimed
from shared.clock import Clock
from shared.db.database import Database, HotConnection
from shared.db.group_commit import GroupCommit
from shared.errors import Fenced, Transient

# whatsmeow makes its tables by itself, when the first session is opened.
_THERE: Final = "SELECT to_regclass('whatsmeow.whatsmeow_device') IS NOT NULL"

T = TypeVar("T")

AGAIN: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Assigned:
    """A message got ``theirs`` from WhatsApp's library as its id; so far it had ``ours``."""

    lease: Lease
    instance_id: UUID
    ours: str
    theirs: str


class Devices:
    """The linked devices. What is written is written under the lease."""

    def __init__(self, *, database: Database, fence: Fence) -> None:
        self._database = database
        self._fence = fence
        self.assignments: GroupCommit[Assigned, bool] = GroupCommit(
            self._assign, name="whatsmeow-ids", max_batch=400
        )

    async def of(self, instance_id: UUID) -> str | None:
        """The address of an instance's device. Raises ``Transient``."""
        async with self._database.hot() as connection:
            address = await connection.fetchval(
                "SELECT address FROM sessions.devices WHERE instance_id = $1", instance_id
            )
        return None if address is None else str(address)

    async def has_keys(self, address: str) -> bool:
        """Whether there is anything to resume; whatsmeow erases the keys when it is logged out."""
        async with self._database.hot() as connection:
            if not await connection.fetchval(_THERE):
                return False
            found = await connection.fetchval(
                "SELECT EXISTS (SELECT FROM whatsmeow.whatsmeow_device WHERE jid = $1)", address
            )
        return bool(found)

    async def save(self, opening: Opening, address: str, *, at: datetime) -> None:
        """An instance has been linked as this device. Raises ``Fenced`` and ``Transient``."""
        async with self._fence.tx() as connection:
            await _held(connection, opening.lease)
            await connection.execute(
                """
                INSERT INTO sessions.devices (
                    instance_id, tenant_id, shard, epoch, address, lid, paired_at
                ) SELECT $1, $2, $3, $4, $5, NULL, $6
                ON CONFLICT (instance_id) DO UPDATE SET
                    shard = excluded.shard, epoch = excluded.epoch, address = excluded.address,
                    paired_at = excluded.paired_at
                """,
                opening.instance_id,
                opening.tenant_id,
                opening.lease.shard,
                opening.lease.epoch,
                address,
                at,
            )

    async def require(self, lease: Lease) -> None:
        """Return if a lease is valid at this moment. Raises ``Fenced`` and ``Transient``."""
        async with self._fence.tx() as connection:
            await _held(connection, lease)

    async def forget(self, instance_id: UUID, *, lease: Lease) -> None:
        """Erase an instance's credentials. Raises ``Fenced`` and ``Transient``."""
        async with self._fence.tx() as connection:
            await _held(connection, lease)
            address = await connection.fetchval(
                "DELETE FROM sessions.devices WHERE instance_id = $1 RETURNING address",
                instance_id,
            )
            if address is not None and await connection.fetchval(_THERE):
                # All other tables go with it, by their foreign keys.
                await connection.execute(
                    "DELETE FROM whatsmeow.whatsmeow_device WHERE jid = $1", address
                )

    async def recorded(self, instance_id: UUID, message_id: str) -> bool:
        """Whether a message that WhatsApp delivers again was committed the first time."""
        async with self._database.hot() as connection:
            found = await connection.fetchval(
                """
                SELECT EXISTS (
                    SELECT FROM sessions.inbound
                    WHERE instance_id = $1 AND right(stanza_key, length($2) + 1) = '|' || $2)
                """,
                instance_id,
                message_id,
            )
        return bool(found)

    async def is_own(self, address: str, sender: str) -> bool:
        """Whether a message comes from another device of the same account."""
        user, _ = _split(sender)
        if user == _split(address)[0]:
            return True
        async with self._database.hot() as connection:
            lid = await connection.fetchval(
                "SELECT lid FROM whatsmeow.whatsmeow_device WHERE jid = $1", address
            )
        return lid is not None and user == _split(str(lid))[0]

    async def end_sessions_with(
        self, address: str, *, sender: str, chat: str, lease: Lease
    ) -> None:
        """Have a device begin anew with one of a contact's. Raises ``Fenced`` and ``Transient``.

        What it cannot decrypt for lack of a session, whatsmeow asks to be sent once more.
        """
        user, number = _split(sender)
        async with self._fence.tx() as connection:
            await _held(connection, lease)
            others = await connection.fetch(
                "SELECT lid, pn FROM whatsmeow.whatsmeow_lid_map WHERE lid = $1 OR pn = $1", user
            )
            users = {user, *(row["lid"] for row in others), *(row["pn"] for row in others)}
            # As libsignal addresses them; private ids have a ``_1``.
            ids = [f"{one}{kind}:{number}" for one in users for kind in ("", "_1")]
            await connection.execute(
                """
                DELETE FROM whatsmeow.whatsmeow_sessions
                WHERE our_jid = $1 AND their_id = ANY($2)
                """,
                address,
                ids,
            )
            await connection.execute(
                """
                DELETE FROM whatsmeow.whatsmeow_sender_keys
                WHERE our_jid = $1 AND chat_id = $2 AND sender_id = ANY($3)
                """,
                address,
                chat,
                ids,
            )

    async def _assign(self, batch: Sequence[Assigned]) -> Sequence[bool]:
        """Note ids before their messages are written anywhere; for each, whether the lease holds.

        So a receipt finds its message even if this process does not live to see the answer.
        """
        async with self._fence.statement() as connection:
            rows = await connection.fetch(
                f"""
                WITH {HELD}, noted AS (
                    UPDATE sessions.handovers h SET engine_message_id = a.theirs
                    FROM unnest($4::uuid[], $5::text[], $6::text[], $7::smallint[], $8::bigint[])
                        AS a (instance_id, ours, theirs, shard, epoch)
                    JOIN held ON held.id = a.shard AND held.epoch = a.epoch
                    WHERE h.instance_id = a.instance_id AND h.engine_message_id = a.ours
                        AND h.outcome IS NULL
                )
                SELECT id, epoch FROM held
                """,  # noqa: S608 - constants of ours
                *claimed([one.lease for one in batch]),
                [one.instance_id for one in batch],
                [one.ours for one in batch],
                [one.theirs for one in batch],
                [one.lease.shard for one in batch],
                [one.lease.epoch for one in batch],
            )
        held = {(row[0], row[1]) for row in rows}
        return [(one.lease.shard, one.lease.epoch) in held for one in batch]


async def patiently(clock: Clock, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask the database until it answers; for what nobody else would repeat."""
    while True:
        try:
            return await call()
        except Transient:
            await clock.sleep(AGAIN)


async def _held(connection: HotConnection, lease: Lease) -> None:
    if not await fences.hold(connection, [lease]):
        raise Fenced("Another process owns this connection now.")


def _split(address: str) -> tuple[str, str]:
    user, _, number = address.rpartition("@")[0].partition(":")
    return user, number or "0"
