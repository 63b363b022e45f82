"""Uploading and downloading, as a customer does it."""

import base64
import hashlib
import io
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg

from shared.ids import new_id
from tests.support.builders import NOON
from tests.support.customer import Answer, Customer


def sha256(content: bytes) -> str:
    """The name of what holds this."""
    return hashlib.sha256(content).hexdigest()


def form(
    content: bytes | AsyncIterator[bytes],
    *,
    field: str = "file",
    filename: str = "picture.png",
    content_type: str = "image/png",
    fields: Mapping[str, str] | None = None,
) -> aiohttp.FormData:
    """A form with a file after its other fields."""
    # Names as browsers write them; this library would put percent signs in.
    made = aiohttp.FormData(quote_fields=False)
    for name, value in (fields or {}).items():
        made.add_field(name, value)
    body = io.BytesIO(content) if isinstance(content, bytes) else content
    made.add_field(field, body, filename=filename, content_type=content_type)
    return made


async def upload(customer: Customer, content: bytes | AsyncIterator[bytes], **more: Any) -> Answer:
    """POST /api/media of a form; ``headers`` go with the request."""
    headers = more.pop("headers", None)
    return await customer.call("POST", "/api/media", data=form(content, **more), headers=headers)


async def upload_base64(customer: Customer, content: bytes) -> Answer:
    """POST /api/media of JSON."""
    body = io.BytesIO(b'{"base64": "' + base64.b64encode(content) + b'"}')
    return await customer.call(
        "POST", "/api/media", data=body, headers={"Content-Type": "application/json"}
    )


async def download(customer: Customer, media_id: str, **headers: str) -> Answer:
    """GET …/download; underscores in names of headers are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await customer.get(f"/api/media/{media_id}/download", headers=named)


async def an_inbound_file(
    sql: asyncpg.Connection, tenant: UUID, instance: UUID, **given: Any
) -> str:
    """The row of a file that somebody sent, stored unless said otherwise; returns its id."""
    row = {
        "id": new_id(),
        "status": "stored",
        "mime_type": "image/png",
        "filename": None,
        "size": 3,
        "sha256": sha256(b"abc"),
        "error": None,
        "created_at": NOON,
        **given,
    }
    await sql.execute(
        "INSERT INTO sessions.inbound_media (id, tenant_id, instance_id, shard, engine_message_id,"
        " mime_type, filename, size, sha256, status, error, due_at, created_at)"
        " VALUES ($1, $2, $3, 7, '3EB0AAAA', $4, $5, $6, $7, $8, $9, $10, $10)",
        row["id"],
        tenant,
        instance,
        row["mime_type"],
        row["filename"],
        row["size"],
        row["sha256"],
        row["status"],
        row["error"],
        row["created_at"],
    )
    return str(row["id"])
