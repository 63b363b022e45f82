"""The audit log: entries are added and read, and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.auditing import Entry
from services.gateway.domain.redaction import changed, redacted
from shared.db.tables.gateway import AuditLogRow, UserRow
from shared.log import mask_text

_LONGEST: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to look for. ``tenant_id``: of one organization, else of all; ``action`` is a whole name
    or, with a star at its end, its beginning.
    """

    tenant_id: UUID | None
    user_id: UUID | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An entry as it is read; ``email`` is the user's of today."""

    id: UUID
    at: datetime
    tenant_id: UUID | None
    actor_type: str
    user_id: UUID | None
    key_id: UUID | None
    email: str | None
    action: str
    resource_type: str
    resource_id: str | None
    before: dict[str, object] | None
    after: dict[str, object] | None
    address: str | None
    request_id: str | None
    times: int


_COLUMNS = (
    AuditLogRow.id,
    AuditLogRow.at,
    AuditLogRow.tenant_id,
    AuditLogRow.actor_type,
    AuditLogRow.user_id,
    AuditLogRow.key_id,
    UserRow.email,
    AuditLogRow.action,
    AuditLogRow.resource_type,
    AuditLogRow.resource_id,
    AuditLogRow.before,
    AuditLogRow.after,
    AuditLogRow.address,
    AuditLogRow.request_id,
    AuditLogRow.times,
)
_NAMES = tuple(Logged.__dataclass_fields__)


async def add(tx: AsyncConnection, *entries: Entry) -> None:
    """Add entries, in the transaction of what they tell of. Secrets in them are left out here."""
    if entries:
        await tx.execute(insert(AuditLogRow), [_values(entry) for entry in entries])


async def page(
    tx: AsyncConnection,
    wanted: Wanted,
    *,
    after: tuple[datetime, UUID] | None,
    offset: int = 0,
    limit: int,
) -> Sequence[Logged]:
    """Entries, latest first, that come after the one at this place."""
    query = (
        select(*_COLUMNS)
        .outerjoin(UserRow, UserRow.id == AuditLogRow.user_id)
        .where(*_conditions(wanted))
        .order_by(AuditLogRow.at.desc(), AuditLogRow.id.desc())
        .offset(offset)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(AuditLogRow.at, AuditLogRow.id) < tuple_(*after))
    return [Logged(**dict(zip(_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def count(tx: AsyncConnection, wanted: Wanted, *, at_most: int) -> int:
    """How many entries there are, as far as anybody wants to count."""
    found = select(AuditLogRow.id).where(*_conditions(wanted)).limit(at_most).subquery()
    return (await tx.execute(select(func.count()).select_from(found))).scalar_one()


async def forget(tx: AsyncConnection, *, before: datetime, at_most: int) -> int:
    """Delete old entries; returns how many.

    By a function of the database's, since our role may not delete here: it spares whatever is
    younger than a month, whoever calls it.
    """
    gone = await tx.execute(
        text("SELECT gateway.forget_audit_logs(:before, :at_most)"),
        {"before": before, "at_most": at_most},
    )
    deleted: int = gone.scalar_one()
    return deleted


def _values(entry: Entry) -> dict[str, object]:
    before, after = entry.before, entry.after
    if before is not None and after is not None:
        before, after = changed(before, after)
    return {
        "id": entry.id,
        "at": entry.at,
        "tenant_id": entry.tenant_id,
        "actor_type": entry.actor.kind.value,
        "user_id": entry.actor.user_id,
        "key_id": entry.actor.key_id,
        "action": str(entry.action),
        "resource_type": entry.resource_type,
        "resource_id": None
        if entry.resource_id is None
        else mask_text(entry.resource_id)[:_LONGEST],
        "before": None if before is None else redacted(before),
        "after": None if after is None else redacted(after),
        # Behind proxies it is what the request says, of any length.
        "address": None if entry.address is None else entry.address[:_LONGEST],
        "request_id": entry.request_id,
        "times": entry.times,
    }


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    for column, value in (
        (AuditLogRow.tenant_id, wanted.tenant_id),
        (AuditLogRow.user_id, wanted.user_id),
        (AuditLogRow.resource_type, wanted.resource_type),
        (AuditLogRow.resource_id, wanted.resource_id),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.action is not None:
        if wanted.action.endswith("*"):
            conditions.append(AuditLogRow.action.startswith(wanted.action[:-1], autoescape=True))
        else:
            conditions.append(AuditLogRow.action == wanted.action)
    if wanted.since is not None:
        conditions.append(AuditLogRow.at >= wanted.since)
    if wanted.before is not None:
        conditions.append(AuditLogRow.at < wanted.before)
    return conditions
