"""Files: those that tenants upload, and those that were sent to their instances."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    Uuid,
    bindparam,
    case,
    column,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    text,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.principal import Scope
from shared.db.tables.dispatcher import MessageRow
from shared.db.tables.gateway import InstanceRow, MediaRow, OrganizationRow
from shared.db.tables.sessions import InboundMediaRow

Source = Literal["upload", "inbound"]
Status = Literal["pending", "stored", "failed"]
Position = tuple[datetime, UUID]
_Query = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFile:
    """A file of a tenant.

    ``source`` is whether it was uploaded or received; a received one is pending until it has been
    fetched, or failed with ``error``, and until then may have neither ``size`` nor ``sha256``.
    """

    source: Source
    id: UUID
    instance_id: UUID | None
    status: Status
    mime_type: str
    size: int | None
    sha256: str | None
    filename: str | None
    error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMedia:
    """A file that has just been stored. ``instance_id``: whose key brought it, if it was a key;
    else ``uploaded_by`` is who. ``held``: it came with a message, and goes if that is refused;
    ``passing``: it did, and is kept no longer than what that says.
    """

    id: UUID
    tenant_id: UUID
    instance_id: UUID | None
    uploaded_by: UUID | None
    sha256: str
    size: int
    mime_type: str
    filename: str | None
    created_at: datetime
    held: bool = False
    passing: bool = False


_NAMES = tuple(MediaFile.__dataclass_fields__)


async def find(
    tx: AsyncConnection, scope: Scope, media_id: UUID, *, unowned: bool = False
) -> MediaFile | None:
    """The file, if it is there for this scope; ``unowned``: also if any person brought it."""
    uploads = _uploads(scope, unowned=unowned).where(MediaRow.id == media_id)
    received = _received(scope).where(InboundMediaRow.id == media_id)
    row = (await tx.execute(union_all(uploads, received))).first()
    return None if row is None else MediaFile(**dict(zip(_NAMES, row, strict=True)))


async def page(
    tx: AsyncConnection,
    scope: Scope,
    *,
    sources: Collection[Source],
    after: Position | None,
    limit: int,
) -> Sequence[MediaFile]:
    """Files, latest first, that come after the one at ``after``."""
    selects: list[_Query] = []
    if "upload" in sources:
        uploads = _uploads(scope)
        if after is not None:
            uploads = uploads.where(tuple_(MediaRow.created_at, MediaRow.id) < after)
        selects.append(
            uploads.order_by(MediaRow.created_at.desc(), MediaRow.id.desc()).limit(limit)
        )
    if "inbound" in sources:
        received = _received(scope)
        if after is not None:
            received = received.where(
                tuple_(InboundMediaRow.created_at, InboundMediaRow.id) < after
            )
        selects.append(
            received.order_by(InboundMediaRow.created_at.desc(), InboundMediaRow.id.desc()).limit(
                limit
            )
        )
    both = union_all(*(select(part.subquery()) for part in selects)).subquery()
    query = select(both).order_by(both.c.created_at.desc(), both.c.id.desc()).limit(limit)
    return [MediaFile(**dict(zip(_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def add(tx: AsyncConnection, new: NewMedia) -> bool:
    """Record a file that is stored; false if its id was there, live and all, already.

    One that was deleted under the same id is back: whoever chose that id meant the same file. One
    that was there stays as long as whoever brings it now holds it, if others let it go.
    """
    values = {name: getattr(new, name) for name in NewMedia.__dataclass_fields__}
    holders = 1 if values.pop("held") else None
    added = await tx.execute(
        upsert(MediaRow)
        .values(**values, holders=holders, held_at=new.created_at if new.held else None)
        .on_conflict_do_update(
            index_elements=[MediaRow.id],
            set_={
                "deleted_at": None,
                "erased_at": None,
                "holders": holders,
                "held_at": new.created_at,
                "filename": new.filename,
            },
            where=MediaRow.deleted_at.is_not(None)
            & (MediaRow.tenant_id == new.tenant_id)
            & (MediaRow.sha256 == new.sha256),
        )
        .returning(MediaRow.id)
    )
    if added.first() is not None:
        return True
    # The conflict has locked the row, so that nobody deletes it before it is held.
    held = MediaRow.holders + 1 if new.held else null()
    await tx.execute(
        update(MediaRow)
        .where(MediaRow.id == new.id, MediaRow.tenant_id == new.tenant_id)
        .values(holders=held, held_at=new.created_at)
    )
    return False


async def name(tx: AsyncConnection, tenant_id: UUID, media_id: UUID) -> bool:
    """Have an upload stay whatever becomes of the message it came with; false if it is gone."""
    live = (
        MediaRow.id == media_id,
        MediaRow.tenant_id == tenant_id,
        MediaRow.deleted_at.is_(None),
    )
    found = (await tx.execute(select(MediaRow.holders).where(*live))).first()
    if found is None or found[0] is None:
        return found is not None
    named = await tx.execute(
        update(MediaRow).where(*live).values(holders=None).returning(MediaRow.id)
    )
    return named.first() is not None


async def let_go(tx: AsyncConnection, tenant_id: UUID, media_id: UUID, *, now: datetime) -> None:
    """Take back one request's hold of a file, and the file with the last of them.

    One statement, which waits for whoever is about to hold or to name it, and then counts anew.
    """
    await tx.execute(
        update(MediaRow)
        .where(
            MediaRow.id == media_id,
            MediaRow.tenant_id == tenant_id,
            MediaRow.deleted_at.is_(None),
            MediaRow.holders.is_not(None),
        )
        .values(
            holders=MediaRow.holders - 1,
            deleted_at=case((MediaRow.holders <= 1, literal(now))),
            filename=case((MediaRow.holders > 1, MediaRow.filename)),
        )
    )


async def lock_quota(tx: AsyncConnection, tenant_id: UUID) -> None:
    """Let no other upload of the tenant be counted until this transaction ends."""
    await tx.execute(
        select(OrganizationRow.id)
        .where(OrganizationRow.id == tenant_id)
        .with_for_update(key_share=True)
    )


async def used(tx: AsyncConnection, tenant_id: UUID, *, beside: str = "") -> int:
    """The bytes of the tenant's uploads, each file once; without that of SHA-256 ``beside``."""
    each = (
        select(func.max(MediaRow.size).label("size"))
        .where(
            MediaRow.tenant_id == tenant_id,
            MediaRow.deleted_at.is_(None),
            MediaRow.sha256 != beside,
        )
        .group_by(MediaRow.sha256)
        .subquery()
    )
    total = await tx.execute(select(func.coalesce(func.sum(each.c.size), 0)))
    return int(total.scalar_one())


async def received(tx: AsyncConnection, tenant_id: UUID) -> int:
    """The bytes of what the tenant's instances were sent, each file once."""
    each = (
        select(func.max(InboundMediaRow.size).label("size"))
        .where(
            InboundMediaRow.tenant_id == tenant_id,
            InboundMediaRow.status == "stored",
            ~_hidden(),
        )
        .group_by(InboundMediaRow.sha256)
        .subquery()
    )
    total = await tx.execute(select(func.coalesce(func.sum(each.c.size), 0)))
    return int(total.scalar_one())


async def needed(tx: AsyncConnection, tenant_id: UUID, media_id: UUID) -> bool:
    """Whether a message that has not been sent yet carries the file."""
    own = select(InstanceRow.id).where(InstanceRow.tenant_id == tenant_id)
    carries = or_(
        MessageRow.media_id == media_id,
        # Of a row from before there was a key ring.
        MessageRow.content["mediaId"].astext == str(media_id),
    )
    # Each half has an index of its own that holds only the messages that wait.
    in_line = exists().where(
        MessageRow.instance_id.in_(own),
        MessageRow.status.in_(("queued", "sending", "retrying")),
        carries,
    )
    later = exists().where(
        MessageRow.tenant_id == tenant_id,
        MessageRow.status.in_(("scheduled", "unconfirmed")),
        carries,
    )
    found = await tx.execute(select(or_(in_line, later)))
    return bool(found.scalar_one())


async def delete(tx: AsyncConnection, tenant_id: UUID, found: MediaFile, *, now: datetime) -> None:
    """Have the file be gone for its tenant; its bytes are erased later."""
    if found.source == "upload":
        await tx.execute(
            update(MediaRow)
            .where(MediaRow.id == found.id, MediaRow.tenant_id == tenant_id)
            .values(deleted_at=now, filename=None)
        )
        return
    # The row of a received file is the session service's: a row beside it says that it is deleted.
    await tx.execute(
        upsert(MediaRow)
        .values(
            id=found.id,
            tenant_id=tenant_id,
            instance_id=found.instance_id,
            sha256=found.sha256 or "",
            size=found.size or 0,
            mime_type=found.mime_type,
            created_at=found.created_at,
            deleted_at=now,
            erased_at=None if found.sha256 else now,
        )
        .on_conflict_do_nothing(index_elements=[MediaRow.id])
    )


async def outlive(
    tx: AsyncConnection,
    *,
    now: datetime,
    passing_before: datetime,
    received_before: datetime,
    at_most: int,
) -> int:
    """Have files be gone that nothing needs any more; returns how many.

    Of organizations that keep no content those that came with a message before the one moment and
    those that were received before the other; of all others those that are past their retention.
    What somebody has put into the library stays, and so does what a message still needs.
    """
    given = {
        "now": now,
        "passing_before": passing_before,
        "received_before": received_before,
        "at_most": at_most,
    }
    passing = await tx.execute(_OUTLIVED_PASSING, given)
    received = await tx.execute(_OUTLIVED_RECEIVED, given)
    return passing.rowcount + received.rowcount


_OUTLIVED_PASSING = text("""
    WITH given AS (SELECT cast(:now AS timestamptz) AS now)
    UPDATE gateway.media SET deleted_at = (SELECT now FROM given), filename = NULL
    WHERE id = ANY (ARRAY(
        SELECT m.id FROM given, gateway.media m JOIN gateway.organizations o ON o.id = m.tenant_id
        WHERE m.passing AND m.deleted_at IS NULL AND m.created_at < :passing_before
          AND (o.content_storage = 'none' OR o.retention_days > 0
               AND m.created_at < given.now - make_interval(days => o.retention_days))
          AND NOT EXISTS (
              SELECT FROM dispatcher.messages w
              WHERE w.media_id = m.id AND w.status IN ('queued', 'sending', 'retrying'))
          AND NOT EXISTS (
              SELECT FROM dispatcher.messages w
              WHERE w.media_id = m.id AND w.status IN ('scheduled', 'unconfirmed'))
        ORDER BY m.created_at LIMIT :at_most
    ))
""")
# The row of a received file is the session service's: a row beside it says that it is deleted.
_OUTLIVED_RECEIVED = text("""
    WITH given AS (SELECT cast(:now AS timestamptz) AS now)
    INSERT INTO gateway.media
        (id, tenant_id, instance_id, sha256, size, mime_type, created_at, deleted_at, erased_at)
    SELECT i.id, i.tenant_id, i.instance_id, coalesce(i.sha256, ''), coalesce(i.size, 0),
           i.mime_type, i.created_at, given.now, CASE WHEN i.sha256 IS NULL THEN given.now END
    FROM given, sessions.inbound_media i JOIN gateway.organizations o ON o.id = i.tenant_id
    WHERE i.status <> 'waiting'
      AND (o.content_storage = 'none' AND i.created_at < :received_before OR o.retention_days > 0
           AND i.created_at < given.now - make_interval(days => o.retention_days))
      AND NOT EXISTS (SELECT FROM gateway.media m WHERE m.id = i.id)
    ORDER BY i.created_at LIMIT :at_most
    ON CONFLICT DO NOTHING
""")


async def forsaken(tx: AsyncConnection, *, before: datetime, now: datetime, at_most: int) -> int:
    """Have files be gone that requests have brought ``before`` and that no message carries.

    Whoever brought one has died before it was known what becomes of the message. What a message
    carries is held by nobody from then on, and not looked at again. Returns how many were settled.
    """
    settled = await tx.execute(_FORSAKEN, {"before": before, "now": now, "at_most": at_most})
    return settled.rowcount


_FORSAKEN = text("""
    UPDATE gateway.media f SET
        holders = NULL,
        deleted_at = CASE WHEN looked.lost THEN cast(:now AS timestamptz) END,
        filename = CASE WHEN NOT looked.lost THEN f.filename END
    FROM (
        SELECT h.id, NOT EXISTS (
            SELECT FROM dispatcher.messages w WHERE w.media_id = h.id
        ) AS lost
        FROM (
            SELECT id FROM gateway.media
            WHERE holders IS NOT NULL AND deleted_at IS NULL AND held_at < :before
            ORDER BY held_at LIMIT :at_most FOR UPDATE SKIP LOCKED
        ) AS h
    ) AS looked
    WHERE f.id = looked.id
""")


async def erasable(tx: AsyncConnection, *, at_most: int) -> list[tuple[UUID, str]]:
    """Files with a row that was deleted and not yet erased, the longest deleted first."""
    deleted = (
        select(MediaRow.tenant_id, MediaRow.sha256)
        .where(MediaRow.deleted_at.is_not(None), MediaRow.erased_at.is_(None))
        .order_by(MediaRow.deleted_at)
        .limit(at_most)
    )
    return list(dict.fromkeys((tenant, sha256) for tenant, sha256 in await tx.execute(deleted)))


async def unreferenced(
    tx: AsyncConnection, files: Sequence[tuple[UUID, str]]
) -> list[tuple[UUID, str]]:
    """Those of ``files`` that no row speaks of any more."""
    named = (
        func.unnest(
            bindparam("tenants", [tenant for tenant, _ in files], ARRAY(Uuid)),
            bindparam("hashes", [sha256 for _, sha256 in files], ARRAY(Text)),
        )
        .table_valued(column("tenant_id", Uuid), column("sha256", Text))
        .render_derived(name="named")
    )
    uploaded = exists().where(
        MediaRow.tenant_id == named.c.tenant_id,
        MediaRow.sha256 == named.c.sha256,
        MediaRow.deleted_at.is_(None),
    )
    inbound = exists().where(
        InboundMediaRow.tenant_id == named.c.tenant_id,
        InboundMediaRow.sha256 == named.c.sha256,
        ~_hidden(),
    )
    found = await tx.execute(select(named.c.tenant_id, named.c.sha256).where(~uploaded, ~inbound))
    return [(tenant, sha256) for tenant, sha256 in found]


async def note_erased(tx: AsyncConnection, tenant_id: UUID, sha256: str, *, now: datetime) -> None:
    """The deleted rows that spoke of this file keep no bytes any more."""
    await tx.execute(
        update(MediaRow)
        .where(
            MediaRow.tenant_id == tenant_id,
            MediaRow.sha256 == sha256,
            MediaRow.deleted_at.is_not(None),
            MediaRow.erased_at.is_(None),
        )
        .values(erased_at=now)
    )


async def forget(tx: AsyncConnection, *, erased_before: datetime, at_most: int) -> int:
    """Delete rows of files that are long gone; returns how many.

    That of a received one stays until the session service has deleted its own.
    """
    gone = await tx.execute(
        text(
            """
            DELETE FROM gateway.media WHERE id = ANY (ARRAY(
                SELECT m.id FROM gateway.media m
                WHERE m.erased_at < :before
                  AND NOT EXISTS (SELECT FROM sessions.inbound_media i WHERE i.id = m.id)
                ORDER BY m.erased_at LIMIT :at_most
            ))
            """
        ),
        {"before": erased_before, "at_most": at_most},
    )
    return gone.rowcount


def _uploads(scope: Scope, *, unowned: bool = False) -> _Query:
    query = select(
        literal("upload").label("source"),
        MediaRow.id,
        MediaRow.instance_id,
        literal("stored").label("status"),
        MediaRow.mime_type,
        MediaRow.size,
        MediaRow.sha256,
        MediaRow.filename,
        null().label("error"),
        MediaRow.created_at,
    ).where(MediaRow.tenant_id == scope.tenant_id, MediaRow.deleted_at.is_(None))
    if scope.instances is None:
        return query
    seen: list[ColumnElement[bool]] = [MediaRow.instance_id.in_(scope.instances)]
    if unowned:
        seen.append(MediaRow.instance_id.is_(None))
    elif scope.user_id is not None:
        seen.append(MediaRow.uploaded_by == scope.user_id)
    return query.where(or_(*seen))


def _received(scope: Scope) -> _Query:
    query = select(
        literal("inbound").label("source"),
        InboundMediaRow.id,
        InboundMediaRow.instance_id,
        case((InboundMediaRow.status == "waiting", "pending"), else_=InboundMediaRow.status).label(
            "status"
        ),
        InboundMediaRow.mime_type,
        InboundMediaRow.size,
        InboundMediaRow.sha256,
        InboundMediaRow.filename,
        InboundMediaRow.error,
        InboundMediaRow.created_at,
    ).where(InboundMediaRow.tenant_id == scope.tenant_id, ~_hidden())
    if scope.instances is None:
        return query
    return query.where(InboundMediaRow.instance_id.in_(scope.instances))


def _hidden() -> ColumnElement[bool]:
    """Whether a received file was deleted by its tenant."""
    return (
        exists()
        .where(
            MediaRow.id == InboundMediaRow.id,
            MediaRow.tenant_id == InboundMediaRow.tenant_id,
            MediaRow.deleted_at.is_not(None),
        )
        .correlate(InboundMediaRow)
    )
