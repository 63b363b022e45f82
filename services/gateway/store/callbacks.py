"""Callbacks of WhatsApp: whom they name, and where they wait for the session service."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import orjson

from services.gateway.domain.engines import VERIFY_DIGEST
from shared.db.database import HotConnection
from shared.security.sealing import KeyRing, Place

TABLE: Final = "sessions.callbacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """An instance that has a number at Meta, or a business account. ``app_secret`` is sealed."""

    id: UUID
    tenant_id: UUID
    shard: int
    phone_number_id: str
    business_account_id: str
    app_secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCallback:
    """What a callback tells one instance. ``digest`` is the same if it comes again."""

    id: UUID
    tenant_id: UUID
    instance_id: UUID
    shard: int
    digest: bytes
    body: bytes


async def knows_token(connection: HotConnection, digests: Collection[str]) -> bool:
    """Whether some instance has a verify token with one of these digests."""
    found = await connection.fetchval(
        """
        SELECT EXISTS (
            SELECT FROM unnest($1::jsonb[]) AS u (wanted)
            JOIN gateway.instances i ON i.settings @> u.wanted
            WHERE i.engine = 'cloud_api' AND i.deleted_at IS NULL
        )
        """,
        [orjson.dumps({VERIFY_DIGEST: digest}).decode() for digest in digests],
    )
    return bool(found)


async def claimants(
    connection: HotConnection, *, numbers: Collection[str], accounts: Collection[str]
) -> Sequence[Claimant]:
    """The instances that have one of these numbers, or one of these business accounts."""
    wanted = [
        *({"phoneNumberId": number} for number in sorted(numbers)),
        *({"businessAccountId": account} for account in sorted(accounts)),
    ]
    rows = await connection.fetch(
        """
        SELECT DISTINCT i.id, i.tenant_id, i.shard, i.settings ->> 'phoneNumberId',
            i.settings ->> 'businessAccountId', i.settings ->> 'appSecret'
        FROM unnest($1::jsonb[]) AS u (wanted)
        JOIN gateway.instances i ON i.settings @> u.wanted
        WHERE i.engine = 'cloud_api' AND i.deleted_at IS NULL
        ORDER BY i.id
        """,
        [orjson.dumps(one).decode() for one in wanted],
    )
    return [
        Claimant(
            id=row[0],
            tenant_id=row[1],
            shard=row[2],
            phone_number_id=row[3] or "",
            business_account_id=row[4] or "",
            app_secret=row[5] or "",
        )
        for row in rows
    ]


async def add(
    connection: HotConnection, callbacks: Sequence[NewCallback], *, ring: KeyRing, now: datetime
) -> set[UUID]:
    """Store callbacks, sealed; the instances for which they are new.

    In the order of the instances, so that two of the same cannot deadlock.
    """
    ordered = sorted(callbacks, key=lambda one: (one.instance_id, one.digest))
    rows = await connection.fetch(
        """
        INSERT INTO sessions.callbacks (id, tenant_id, instance_id, digest, sealed, received_at)
        SELECT u.id, u.tenant_id, u.instance_id, u.digest, u.sealed, $6
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::bytea[])
            WITH ORDINALITY AS u (id, tenant_id, instance_id, digest, sealed, place)
        ORDER BY u.place
        ON CONFLICT DO NOTHING RETURNING instance_id
        """,
        [one.id for one in ordered],
        [one.tenant_id for one in ordered],
        [one.instance_id for one in ordered],
        [one.digest for one in ordered],
        [ring.seal(one.body, Place(one.tenant_id, TABLE, str(one.id))) for one in ordered],
        now,
    )
    return {row[0] for row in rows}
