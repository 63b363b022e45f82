"""Handovers: which transmissions were handed to an engine, and what became of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.sessions.domain.instance import seconds
from services.sessions.domain.lease import Lease
from services.sessions.store.fence import HELD, claimed
from shared.contracts.commands import SettledTransmission, Transmission
from shared.db.database import HotConnection


@dataclass(frozen=True, slots=True)
class Open:
    """A handover that nobody will settle any more. ``unconfirmed_after`` is in seconds."""

    transmission_id: UUID
    message_id: UUID
    instance_id: UUID
    engine_message_id: str
    unconfirmed_after: float | None


async def mark(
    connection: HotConnection, work: Sequence[tuple[Lease, Transmission]], *, now: datetime
) -> set[UUID]:
    """Record that transmissions are about to be handed over; return those that are ours.

    The others were recorded before, or their lease is not valid any more. One statement for any
    number of shards.
    """
    rows = await connection.fetch(
        f"""
        WITH {HELD}
        INSERT INTO sessions.handovers (
            transmission_id, message_id, tenant_id, instance_id, shard, epoch, engine_message_id,
            handed_over_at
        )
        SELECT t.transmission_id, t.message_id, t.tenant_id, t.instance_id, held.id, held.epoch,
            t.engine_message_id, $11
        FROM unnest(
            $4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[], $8::smallint[], $9::bigint[],
            $10::text[]
        ) AS t (
            transmission_id, message_id, tenant_id, instance_id, shard, epoch, engine_message_id
        )
        JOIN held ON held.id = t.shard AND held.epoch = t.epoch
        ON CONFLICT DO NOTHING
        RETURNING transmission_id
        """,  # noqa: S608 - constants of ours
        *claimed([lease for lease, _ in work]),
        [t.transmission_id for _, t in work],
        [t.message_id for _, t in work],
        [t.tenant_id for _, t in work],
        [t.instance_id for _, t in work],
        [lease.shard for lease, _ in work],
        [lease.epoch for lease, _ in work],
        [t.engine_message_id for _, t in work],
        now,
    )
    return {row[0] for row in rows}


async def settle(
    connection: HotConnection, ended: Sequence[tuple[Lease, SettledTransmission]], *, now: datetime
) -> set[UUID]:
    """Record outcomes, each once and under its lease; return those that were recorded now.

    With the id that the engine has used, by which receipts find the message.
    """
    rows = await connection.fetch(
        f"""
        WITH {HELD}
        UPDATE sessions.handovers h SET outcome = o.outcome, settled_at = $8,
            engine_message_id = coalesce(o.engine_message_id, h.engine_message_id)
        FROM unnest($4::uuid[], $5::smallint[], $6::bigint[], $7::text[], $9::text[])
            AS o (transmission_id, shard, epoch, outcome, engine_message_id)
        JOIN held ON held.id = o.shard AND held.epoch = o.epoch
        WHERE h.transmission_id = o.transmission_id AND h.epoch = o.epoch AND h.outcome IS NULL
        RETURNING h.transmission_id
        """,  # noqa: S608 - constants of ours
        *claimed([lease for lease, _ in ended]),
        [settled.transmission_id for _, settled in ended],
        [lease.shard for lease, _ in ended],
        [lease.epoch for lease, _ in ended],
        [settled.outcome.value for _, settled in ended],
        now,
        [settled.engine_message_id for _, settled in ended],
    )
    return {row[0] for row in rows}


async def settle_inherited(
    connection: HotConnection, leases: Collection[Lease], *, now: datetime
) -> Sequence[Open]:
    """Settle as unknown what earlier owners of some shards left open; nobody else ever will."""
    rows = await connection.fetch(
        f"""
        WITH {HELD}, settled AS (
            UPDATE sessions.handovers h SET outcome = 'unknown', settled_at = $4
            FROM held
            WHERE h.shard = held.id AND h.outcome IS NULL AND h.epoch < held.epoch
            RETURNING h.transmission_id, h.message_id, h.instance_id, h.engine_message_id
        )
        SELECT s.*, CASE jsonb_typeof(i.settings -> 'unconfirmedAfter')
            WHEN 'number' THEN (i.settings ->> 'unconfirmedAfter')::float8 END
        FROM settled s LEFT JOIN gateway.instances i ON i.id = s.instance_id
        """,  # noqa: S608 - constants of ours
        *claimed(leases),
        now,
    )
    return [Open(row[0], row[1], row[2], row[3], seconds(row[4])) for row in rows]


async def orphans(
    connection: HotConnection, leases: Collection[Lease], *, before: datetime, limit: int
) -> Sequence[tuple[Lease, Open]]:
    """Handovers under valid leases that have been open since ``before``."""
    shards, epochs, owner = claimed(leases)
    rows = await connection.fetch(
        """
        SELECT h.transmission_id, h.message_id, h.instance_id, h.engine_message_id, h.shard, h.epoch
        FROM sessions.handovers h
        JOIN unnest($1::smallint[], $2::bigint[]) AS l (id, epoch)
            ON l.id = h.shard AND l.epoch = h.epoch
        WHERE h.outcome IS NULL AND h.handed_over_at < $3
        LIMIT $4
        """,
        shards,
        epochs,
        before,
        limit,
    )
    return [
        (Lease(row[4], row[5], owner or ""), Open(row[0], row[1], row[2], row[3], None))
        for row in rows
    ]


async def messages_of(
    connection: HotConnection, keys: Collection[tuple[UUID, str]]
) -> dict[tuple[UUID, str], UUID]:
    """The messages behind engine message ids, by instance and id.

    Every attempt has the same one until it is settled; then it has the one that the engine used.
    """
    rows = await connection.fetch(
        """
        SELECT h.instance_id, h.engine_message_id, h.message_id
        FROM sessions.handovers h
        JOIN unnest($1::uuid[], $2::text[]) AS k (instance_id, engine_message_id)
            ON h.instance_id = k.instance_id AND h.engine_message_id = k.engine_message_id
        """,
        [instance_id for instance_id, _ in keys],
        [engine_message_id for _, engine_message_id in keys],
    )
    return {(row[0], row[1]): row[2] for row in rows}


async def undecided(
    connection: HotConnection, seen: Mapping[tuple[UUID, str], datetime]
) -> set[tuple[UUID, str]]:
    """Those engine message ids that may yet turn out to be a message's, though none has them now.

    An engine that chooses its ids itself names them when a handover has ended. So any of its
    instance's that began before the id was first ``seen`` and is still open may be the one.
    """
    keys = list(seen)
    rows = await connection.fetch(
        """
        SELECT k.place FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY
            AS k (instance_id, seen_at, place)
        WHERE EXISTS (
            SELECT FROM sessions.handovers h
            WHERE h.outcome IS NULL AND h.instance_id = k.instance_id
                AND h.handed_over_at <= k.seen_at
        )
        """,
        [instance_id for instance_id, _ in keys],
        list(seen.values()),
    )
    return {keys[row[0] - 1] for row in rows}
