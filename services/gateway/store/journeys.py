"""The traces that a message leaves with every service on its way."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.domain.timeline import Attempt, Change, Handover
from shared.db.tables.dispatcher import MessageRow, TransmissionRow
from shared.db.tables.gateway import WebhookRow
from shared.db.tables.sessions import HandoverRow
from shared.db.tables.webhooks import AttemptRow, DeliveryRow
from shared.log import get_logger
from shared.messaging.contents import opened
from shared.security.sealing import KeyRing, Unsealable

log = get_logger()


async def handovers(tx: AsyncConnection, message_id: UUID) -> list[Handover]:
    """Each transmission of a message, and when it was handed to the engine."""
    rows = await tx.execute(
        select(
            TransmissionRow.attempt,
            TransmissionRow.created_at,
            TransmissionRow.paced_until,
            TransmissionRow.paced_by,
            HandoverRow.handed_over_at,
            TransmissionRow.outcome,
            TransmissionRow.code,
            TransmissionRow.detail,
            TransmissionRow.settled_at,
        )
        .outerjoin(HandoverRow, HandoverRow.transmission_id == TransmissionRow.id)
        .where(TransmissionRow.message_id == message_id)
        .order_by(TransmissionRow.created_at)
    )
    return [Handover(*row) for row in rows]


async def changes(tx: AsyncConnection, ring: KeyRing, message_id: UUID) -> list[Change]:
    """Each reaction, edit and revocation of ours that WhatsApp has taken for a message."""
    rows = await tx.execute(
        select(
            MessageRow.sent_at,
            MessageRow.type,
            MessageRow.id,
            MessageRow.tenant_id,
            MessageRow.content,
            MessageRow.sealed,
        )
        .where(MessageRow.target_id == message_id, MessageRow.sent_at.is_not(None))
        .order_by(MessageRow.sequence)
    )
    return [
        Change(at, kind, id_, _emoji(ring, tenant_id, id_, sealed=sealed, plain=plain))
        for at, kind, id_, tenant_id, plain, sealed in rows
        if at is not None
    ]


def _emoji(
    ring: KeyRing,
    tenant_id: UUID,
    message_id: UUID,
    *,
    sealed: bytes | None,
    plain: dict[str, object] | None,
) -> str | None:
    try:
        content = opened(ring, tenant_id, message_id, sealed=sealed, plain=plain)
    except Unsealable:  # that it was changed is still known
        log.exception("message_not_readable", message_id=str(message_id))
        return None
    return str(content["emoji"]) if content is not None and "emoji" in content else None


async def was_sent(tx: AsyncConnection, instance_id: UUID, engine_message_id: str) -> bool:
    """Whether the instance has sent a message under this id of WhatsApp's lately."""
    query = select(HandoverRow.transmission_id).where(
        HandoverRow.instance_id == instance_id, HandoverRow.engine_message_id == engine_message_id
    )
    return (await tx.execute(query.limit(1))).first() is not None


async def webhook_attempts(tx: AsyncConnection, tenant_id: UUID, message_id: UUID) -> list[Attempt]:
    """Each POST of an event about a message."""
    rows = await tx.execute(
        select(
            AttemptRow.at,
            AttemptRow.number,
            DeliveryRow.event_type,
            WebhookRow.url,
            AttemptRow.status_code,
            AttemptRow.duration_ms,
            AttemptRow.error,
        )
        .join(DeliveryRow, DeliveryRow.id == AttemptRow.delivery_id)
        .outerjoin(WebhookRow, WebhookRow.id == DeliveryRow.endpoint_id)
        .where(DeliveryRow.message_id == message_id, DeliveryRow.tenant_id == tenant_id)
        .order_by(AttemptRow.at)
    )
    return [Attempt(*row) for row in rows]
