"""Dead letters: what no service could process, kept until somebody has decided about it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.dead_letters import Handled
from shared.db.tables.gateway import DeadLetterRow, InstanceRow
from shared.security.sealing import NOBODY, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter; without ``tenant_id`` it concerns several tenants, or none that is known."""

    id: UUID
    queue: str
    message_id: UUID
    kind: str
    type: str
    tenant_id: UUID | None
    instance_id: UUID | None
    reason: str
    why: str
    size: int
    times: int
    first_died_at: datetime
    died_at: datetime
    handled: str | None = None
    handled_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters to list; ``tenant_id`` is ``None`` for those of everybody."""

    tenant_id: UUID | None
    handled: Handled | None = None
    queue: str | None = None
    type: str | None = None
    since: datetime | None = None


_NAMES = tuple(DeadLetter.__dataclass_fields__)
_OF_EACH_DEATH = ("tenant_id", "instance_id", "reason", "why", "size", "died_at", "sealed")
_COLUMNS = tuple(DeadLetterRow.__table__.c[name] for name in _NAMES)


def place(id_: UUID, tenant_id: UUID | None) -> Place:
    """Where a dead letter's body is sealed."""
    return Place(tenant_id or NOBODY, "gateway.dead_letters", str(id_))


async def tenants_of(tx: AsyncConnection, instances: Collection[UUID]) -> Mapping[UUID, UUID]:
    """Whose each of these instances is, deleted ones included."""
    rows = await tx.execute(
        select(InstanceRow.id, InstanceRow.tenant_id).where(InstanceRow.id.in_(instances))
    )
    return {row[0]: row[1] for row in rows}


async def keep(tx: AsyncConnection, letters: Sequence[tuple[DeadLetter, bytes]]) -> None:
    """Keep letters with their sealed bodies.

    One that is there and waits has come again by itself, and stays as it is. One that somebody has
    handled has died again, so far as can be told, and waits anew.
    """
    rows = [
        {**{name: getattr(letter, name) for name in _NAMES}, "sealed": sealed}
        for letter, sealed in sorted(letters, key=lambda each: each[0].id)
    ]
    inserted = upsert(DeadLetterRow)
    await tx.execute(
        inserted.on_conflict_do_update(
            index_elements=[DeadLetterRow.id],
            set_={
                "times": DeadLetterRow.times + 1,
                "handled": None,
                "handled_at": None,
                **{name: inserted.excluded[name] for name in _OF_EACH_DEATH},
            },
            where=DeadLetterRow.handled.is_not(None),
        ),
        rows,
    )


async def page(
    tx: AsyncConnection,
    wanted: Wanted,
    *,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[DeadLetter]:
    """Dead letters, the latest first."""
    conditions: list[ColumnElement[bool]] = [
        DeadLetterRow.handled.is_(None)
        if wanted.handled is None
        else DeadLetterRow.handled == wanted.handled
    ]
    if wanted.tenant_id is not None:
        conditions.append(DeadLetterRow.tenant_id == wanted.tenant_id)
    if wanted.queue is not None:
        conditions.append(DeadLetterRow.queue == wanted.queue)
    if wanted.type is not None:
        conditions.append(DeadLetterRow.type == wanted.type)
    if wanted.since is not None:
        conditions.append(DeadLetterRow.died_at >= wanted.since)
    if after is not None:
        conditions.append(tuple_(DeadLetterRow.died_at, DeadLetterRow.id) < after)
    rows = await tx.execute(
        select(*_COLUMNS)
        .where(*conditions)
        .order_by(DeadLetterRow.died_at.desc(), DeadLetterRow.id.desc())
        .limit(limit)
    )
    return [DeadLetter(**dict(zip(_NAMES, row, strict=True))) for row in rows]


async def locked(
    tx: AsyncConnection, id_: UUID, *, tenant_id: UUID | None
) -> tuple[DeadLetter, bytes | None] | None:
    """A dead letter and its sealed body, for nobody else to handle meanwhile."""
    query = select(*_COLUMNS, DeadLetterRow.sealed).where(DeadLetterRow.id == id_).with_for_update()
    if tenant_id is not None:
        query = query.where(DeadLetterRow.tenant_id == tenant_id)
    row = (await tx.execute(query)).one_or_none()
    if row is None:
        return None
    *fields, sealed = row
    return DeadLetter(**dict(zip(_NAMES, fields, strict=True))), sealed


async def handle(tx: AsyncConnection, id_: UUID, handled: Handled, *, now: datetime) -> None:
    """Write down what became of a dead letter; its body is not needed any more."""
    await tx.execute(
        update(DeadLetterRow)
        .where(DeadLetterRow.id == id_)
        .values(handled=handled, handled_at=now, sealed=None)
    )


async def waiting(tx: AsyncConnection) -> tuple[int, datetime | None]:
    """How many wait, and since when the oldest does."""
    row = (
        await tx.execute(
            select(func.count(), func.min(DeadLetterRow.died_at)).where(
                DeadLetterRow.handled.is_(None)
            )
        )
    ).one()
    number, oldest = row
    return int(number), oldest


async def forget(tx: AsyncConnection, *, handled_before: datetime, at_most: int) -> int:
    """Delete letters that were handled long ago; returns how many."""
    old = (
        select(DeadLetterRow.id)
        .where(DeadLetterRow.handled_at < handled_before)
        .order_by(DeadLetterRow.handled_at)
        .limit(at_most)
    )
    gone = await tx.execute(delete(DeadLetterRow).where(DeadLetterRow.id.in_(old)))
    return gone.rowcount
