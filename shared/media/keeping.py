"""How a row and its file stay together, though no transaction spans the database and the store.

Several rows may speak of one file, and a file goes when the last of them is gone. Whoever is about
to say in a row that a file is stored makes sure of it by ``keep`` in the transaction that writes
the row; whoever removes a file does so under ``alone`` and looks at the rows first. Then either
``keep`` finds the file gone, and it is put again, or the row is seen and the file stays.
"""

import hashlib
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.media.store import MediaStore


async def keep(tx: AsyncConnection, store: MediaStore, tenant_id: UUID, sha256: str) -> bool:
    """Whether the file is there, and will be until this transaction ends; false: put it again.

    Call it after ``MediaStore.put`` and before the row is written, and repeat both if it is false,
    outside this transaction.
    """
    await tx.execute(select(func.pg_advisory_xact_lock_shared(_number(tenant_id, sha256))))
    return await store.exists(tenant_id, sha256)


async def alone(tx: AsyncConnection, tenant_id: UUID, sha256: str) -> None:
    """Wait for everybody who is about to keep the file, and hold off others meanwhile."""
    await tx.execute(select(func.pg_advisory_xact_lock(_number(tenant_id, sha256))))


def _number(tenant_id: UUID, sha256: str) -> int:
    digest = hashlib.sha256(f"media\n{tenant_id}\n{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
