"""An instance's connection: what its owner wants of it, what is so, and the QR code to pair it."""

import asyncio
from io import BytesIO
from typing import Final, Literal

import segno
from aiohttp import web

from services.gateway.api.auditing import note
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.instances import Asked, Qr, StatusView
from services.gateway.api.seen import seen
from services.gateway.domain.capabilities import require
from services.gateway.domain.engines import capabilities
from services.gateway.domain.media_types import preferred
from services.gateway.domain.readiness import no_code
from services.gateway.store import instances
from shared.broker.topology import shard_queue
from shared.clock import Clock
from shared.contracts.capabilities import Capability
from shared.contracts.commands import ConnectInstance, DisconnectInstance
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.web.edge import REQUEST_ID
from shared.web.envelope import respond

log = get_logger()

PNG: Final = "image/png"
SVG: Final = "image/svg+xml"
_JSON: Final = "application/json"

Wish = Literal["connect", "disconnect", "restart", "logout"]


class Connections:
    """``/api/instances/{id}/connect`` and what else concerns the connection.

    Each of the wishes may be repeated: one for what is so already changes nothing.
    """

    def __init__(
        self, *, database: Database, revocations: Revocations, relay: Relay, clock: Clock
    ) -> None:
        self._database = database
        self._revocations = revocations
        self._relay = relay
        self._clock = clock

    async def connect(self, request: web.Request) -> web.StreamResponse:
        return await self._ask(request, "connect")

    async def disconnect(self, request: web.Request) -> web.StreamResponse:
        return await self._ask(request, "disconnect")

    async def restart(self, request: web.Request) -> web.StreamResponse:
        return await self._ask(request, "restart")

    async def logout(self, request: web.Request) -> web.StreamResponse:
        return await self._ask(request, "logout")

    async def status(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            return respond(seen(request, StatusView.of(await instance_in_path(tx, request))))

    async def qr(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
        require(instance.engine, capabilities(instance.engine), Capability.QR)
        code, expires_at = instance.qr_code, instance.qr_expires_at
        if code is None or expires_at is None or expires_at <= self._clock.now():
            raise no_code(instance.status, connected=instance.connected, what="QR code")
        kind = preferred(request.headers.get("Accept", _JSON), (_JSON, PNG, SVG))
        if kind == _JSON:
            return respond(Qr(code=code, expires_at=expires_at))
        # Drawing takes milliseconds, which others would have to wait.
        picture = await asyncio.to_thread(_draw, code, kind)
        return web.Response(body=picture, content_type=kind, headers={"Cache-Control": "no-store"})

    async def _ask(self, request: web.Request, wish: Wish) -> web.StreamResponse:
        """Store what is wanted, and tell the owner of the instance's shard to look."""
        now = self._clock.now()
        connected = wish in {"connect", "restart"}
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request, lock=True)
            await instances.change(tx, instance.id, {"connected": connected}, now=now)
            await note(
                tx,
                request,
                "instance",
                instance.id,
                before={"connected": instance.connected},
                after={"connected": connected},
            )
            command = (
                ConnectInstance(
                    instance_id=instance.id,
                    request_id=request[REQUEST_ID],
                    restart=wish == "restart",
                )
                if connected
                else DisconnectInstance(
                    instance_id=instance.id,
                    request_id=request[REQUEST_ID],
                    logout=wish == "logout",
                )
            )
            row = outbox.command(command, to=shard_queue(instance.shard))
            await outbox.add(tx, GatewayOutboxRow, [row], now=now)
        self._relay.wake()
        await self._revocations.tell(instances=[instance.id])
        return respond(
            Asked(id=instance.id, status=instance.status, connected=connected), status=202
        )


def _draw(code: str, kind: str) -> bytes:
    drawn = BytesIO()
    segno.make(code, error="m", micro=False).save(
        drawn, kind="png" if kind == PNG else "svg", scale=8, border=4
    )
    return drawn.getvalue()
