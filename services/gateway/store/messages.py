"""Messages as their owners see them; the dispatcher writes everything after their acceptance."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    and_,
    any_,
    exists,
    func,
    literal,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from services.gateway.domain.principal import Scope
from shared.db.tables.dispatcher import MessageRow, MessageWordRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What somebody wanted said, or has said to us, and what became of it.

    What it says is ``sealed``, or plain ``content`` in a row from before there was a key ring;
    neither if it has been erased.
    """

    id: UUID
    tenant_id: UUID
    sequence: int
    instance_id: UUID
    direction: str
    status: str
    type: str
    chat: str
    sender: str
    recipient: str
    content: dict[str, object] | None
    sealed: bytes | None
    metadata: dict[str, str] | None
    priority: int
    attempts: int
    engine_message_id: str | None
    error_code: str | None
    error_message: str | None
    created_at: datetime
    expires_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    target_id: UUID | None
    edited_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a list is to hold; ``None`` filters nothing. ``chat`` is a canonical WhatsApp id."""

    direction: str | None = None
    statuses: Sequence[str] = ()
    types: Sequence[str] = ()
    sender: str | None = None
    recipient: str | None = None
    chat: str | None = None
    since: datetime | None = None
    before: datetime | None = None


# How many of the messages with its rarest word a search looks at before it answers with what it
# has found so far, whatever is asked for.
LOOKED_AT: Final = 500
# A window that is read whole, to be sorted.
FEW_DAYS: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found. From sequence ``further`` on there may be more."""

    messages: list[Message]
    further: int | None


_COLUMNS = (
    MessageRow.id,
    MessageRow.tenant_id,
    MessageRow.sequence,
    MessageRow.instance_id,
    MessageRow.direction,
    MessageRow.status,
    MessageRow.type,
    MessageRow.chat,
    MessageRow.sender,
    MessageRow.recipient,
    MessageRow.content,
    MessageRow.sealed,
    MessageRow.metadata_,
    MessageRow.priority,
    MessageRow.attempts,
    MessageRow.engine_message_id,
    MessageRow.error_code,
    MessageRow.error_message,
    MessageRow.created_at,
    MessageRow.expires_at,
    MessageRow.sent_at,
    MessageRow.delivered_at,
    MessageRow.read_at,
    MessageRow.failed_at,
    MessageRow.target_id,
    MessageRow.edited_at,
    MessageRow.revoked_at,
)
_NAMES = tuple(Message.__dataclass_fields__)


async def find(tx: AsyncConnection, scope: Scope, message_id: UUID) -> Message | None:
    """The message, if it exists for this scope."""
    query = select(*_COLUMNS).where(MessageRow.id == message_id, *_visible(scope))
    row = (await tx.execute(query)).first()
    return None if row is None else Message(**dict(zip(_NAMES, row, strict=True)))


async def find_all(tx: AsyncConnection, scope: Scope, ids: Collection[UUID]) -> list[Message]:
    """Those of the messages that exist for this scope, in the order of acceptance."""
    query = (
        select(*_COLUMNS)
        .where(MessageRow.id.in_(ids), *_visible(scope))
        .order_by(MessageRow.sequence)
    )
    return [Message(**dict(zip(_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def page(
    tx: AsyncConnection,
    scope: Scope,
    wanted: Wanted,
    *,
    after: int | None = None,
    offset: int = 0,
    limit: int,
) -> list[Message]:
    """Messages, latest accepted first, that come after the one with sequence ``after``."""
    conditions = [*_visible(scope), *_conditions(wanted)]
    if after is not None:
        conditions.append(MessageRow.sequence < after)
    if _few_days(wanted):
        # All of a few days are sorted, which is cheap for their numbers and not for whole rows.
        numbers = await tx.execute(
            select(MessageRow.sequence)
            .where(*conditions)
            .order_by((MessageRow.sequence + 0).desc())
            .limit(limit)
            .offset(offset)
        )
        return await _numbered(tx, scope, wanted, [number for (number,) in numbers], limit=limit)
    query = (
        select(*_COLUMNS)
        .where(*conditions)
        .order_by(MessageRow.sequence.desc())
        .limit(limit)
        .offset(offset)
    )
    return [Message(**dict(zip(_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def search(
    tx: AsyncConnection,
    scope: Scope,
    wanted: Wanted,
    words: Sequence[Sequence[int]],
    *,
    after: int | None = None,
    limit: int,
) -> Found:
    """Messages that hold all of some words, latest accepted first, after sequence ``after``.

    Each word comes as its hashes under every key of the ring. The rarest leads, and at most
    ``LOOKED_AT`` of the messages that have it are looked at, whatever the others are.
    """
    leading, *others = await _rarest_first(tx, words)
    candidates = union_all(
        *(
            select(MessageWordRow.sequence)
            .where(
                MessageWordRow.word == word,
                *([] if after is None else [MessageWordRow.sequence < after]),
            )
            .order_by(MessageWordRow.sequence.desc())
            .limit(LOOKED_AT)
            .subquery()
            .select()
            for word in leading
        )
    ).subquery("candidates")
    looked_at = (
        select(candidates.c.sequence)
        .order_by(candidates.c.sequence.desc())
        .limit(LOOKED_AT)
        .cte("looked_at")
    )
    holds = aliased(MessageWordRow)
    matches = [
        exists().where(holds.word.in_(word), holds.sequence == looked_at.c.sequence)
        for word in others
    ]
    rows = (
        await tx.execute(
            select(looked_at.c.sequence, and_(true(), *matches)).order_by(
                looked_at.c.sequence.desc()
            )
        )
    ).all()
    held = [sequence for sequence, matching in rows if matching]
    messages: list[Message] = []
    for some in (held[:limit], held[limit:]):
        if some and len(messages) < limit:
            messages += await _numbered(tx, scope, wanted, some, limit=limit - len(messages))
    further = rows[-1][0] if len(rows) == LOOKED_AT and len(messages) < limit else None
    return Found(messages, further)


async def _rarest_first(tx: AsyncConnection, words: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The words by how many messages have them, as far as that is worth counting."""
    counts = [
        select(func.count())
        .select_from(
            select(MessageWordRow.sequence)
            .where(MessageWordRow.word.in_(word))
            .order_by(MessageWordRow.sequence.desc())
            .limit(LOOKED_AT)
            .subquery()
        )
        .scalar_subquery()
        for word in words
    ]
    row = (await tx.execute(select(*counts))).one()
    return [word for _, word in sorted(zip(row, words, strict=True), key=lambda one: one[0])]


async def _numbered(
    tx: AsyncConnection, scope: Scope, wanted: Wanted, sequences: Sequence[int], *, limit: int
) -> list[Message]:
    query = (
        select(*_COLUMNS)
        .where(
            MessageRow.sequence == any_(literal(sequences, ARRAY(BigInteger))),
            *_visible(scope),
            *_conditions(wanted),
        )
        .order_by(MessageRow.sequence.desc())
        .limit(limit)
    )
    return [Message(**dict(zip(_NAMES, row, strict=True))) for row in await tx.execute(query)]


async def count(tx: AsyncConnection, scope: Scope, wanted: Wanted) -> int:
    """How many messages there are in all."""
    query = (
        select(func.count()).select_from(MessageRow).where(*_visible(scope), *_conditions(wanted))
    )
    return (await tx.execute(query)).scalar_one()


def _few_days(wanted: Wanted) -> bool:
    """Whether the list is of so few days that they are best read whole, and sorted.

    The planner does not know that times go with sequences. To find a day of long ago it would walk
    there from today, if the index of sequences promised it the order.
    """
    if wanted.since is None or wanted.before is None:
        return False
    return wanted.before - wanted.since <= FEW_DAYS


def _visible(scope: Scope) -> list[ColumnElement[bool]]:
    conditions = [MessageRow.tenant_id == scope.tenant_id]
    if scope.instances is not None:
        conditions.append(MessageRow.instance_id.in_(scope.instances))
    return conditions


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions = []
    if wanted.direction is not None:
        conditions.append(MessageRow.direction == wanted.direction)
    if wanted.statuses:
        conditions.append(MessageRow.status.in_(wanted.statuses))
    if wanted.types:
        conditions.append(MessageRow.type.in_(wanted.types))
    if wanted.sender is not None:
        conditions.append(MessageRow.sender == wanted.sender)
    if wanted.recipient is not None:
        conditions.append(MessageRow.recipient == wanted.recipient)
    if wanted.chat is not None:
        conditions.append(MessageRow.chat == wanted.chat)
    if wanted.since is not None:
        conditions.append(MessageRow.created_at >= wanted.since)
    if wanted.before is not None:
        conditions.append(MessageRow.created_at < wanted.before)
    return conditions
