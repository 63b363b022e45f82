"""What was last heard of numbers: whether they are on WhatsApp, and under which address."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from shared.contracts.questions import CheckedNumber
from shared.db.database import HotConnection


async def known(
    connection: HotConnection,
    tenant_id: UUID,
    engine: str,
    numbers: Collection[str],
    *,
    found_since: datetime,
    missed_since: datetime,
) -> dict[str, CheckedNumber]:
    """Those of ``numbers`` that were found, or missed, recently enough to be believed."""
    rows = await connection.fetch(
        """
        SELECT number, on_whatsapp, address FROM sessions.numbers
        WHERE tenant_id = $1 AND engine = $2 AND number = ANY($3::text[])
            AND checked_at > CASE WHEN on_whatsapp THEN $4::timestamptz ELSE $5::timestamptz END
        """,
        tenant_id,
        engine,
        list(numbers),
        found_since,
        missed_since,
    )
    return {
        row[0]: CheckedNumber(number=row[0], on_whatsapp=row[1], address=row[2]) for row in rows
    }


async def remember(
    connection: HotConnection,
    tenant_id: UUID,
    engine: str,
    checked: Collection[CheckedNumber],
    *,
    now: datetime,
) -> None:
    """Keep what WhatsApp has said. In order, so that two who ask the same cannot deadlock."""
    ordered = sorted({one.number: one for one in checked}.values(), key=lambda one: one.number)
    await connection.execute(
        """
        INSERT INTO sessions.numbers AS n
            (tenant_id, engine, number, on_whatsapp, address, checked_at)
        SELECT $1, $2, u.number, u.on_whatsapp, u.address, $6
        FROM unnest($3::text[], $4::boolean[], $5::text[]) AS u (number, on_whatsapp, address)
        ON CONFLICT (tenant_id, engine, number) DO UPDATE SET on_whatsapp = excluded.on_whatsapp,
            address = excluded.address, checked_at = excluded.checked_at
        WHERE n.checked_at <= excluded.checked_at
        """,
        tenant_id,
        engine,
        [one.number for one in ordered],
        [one.on_whatsapp for one in ordered],
        [one.address for one in ordered],
        now,
    )
