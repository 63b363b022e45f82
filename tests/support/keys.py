"""The keys that content is sealed with in tests, and a ring of them."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from shared.messaging.contents import opened
from shared.security.sealing import Key, KeyRing, Place

Row = asyncpg.Record | Mapping[str, Any]

KEYS: Final = f"test:{'A' * 43}="
RING: Final = KeyRing([Key.parse(KEYS)])


def logged(row: Row) -> dict[str, Any]:
    """An event as the event log's row has it."""
    place = Place(row["tenant_id"], "gateway.events", str(row["id"]))
    event: dict[str, Any] = orjson.loads(RING.open(row["body"], place))
    return event


def delivered(row: Row) -> bytes:
    """The body of a delivery, as its row has it."""
    place = Place(row["tenant_id"], "webhooks.deliveries", str(row["id"]))
    return RING.open(row["body"], place)


def answered(tenant: UUID, attempt: Row) -> str:
    """The beginning of what an attempt was answered."""
    place = Place(tenant, "webhooks.attempts", str(attempt["delivery_id"]))
    return RING.open(attempt["sealed_response"], place).decode()


def said(row: Row) -> bytes:
    """What the row of a message says, as JSON; ``null`` if that has been erased."""
    content = opened(RING, row["tenant_id"], row["id"], sealed=row["sealed"], plain=row["content"])
    return orjson.dumps(content)
