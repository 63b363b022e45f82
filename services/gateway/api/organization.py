"""The caller's organization."""

from zoneinfo import ZoneInfo

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.accounts import (
    ErasureView,
    MessageQuota,
    OrganizationChange,
    OrganizationDetails,
    OrganizationView,
    Quota,
    Usage,
)
from services.gateway.domain.plans import PLANS, month_at
from services.gateway.domain.principal import Principal
from services.gateway.store import accounts, instances, platform, usage
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import NotFound
from shared.web.body import BodyLimits, read_model
from shared.web.envelope import respond


class Organizations:
    """``/api/organization``."""

    def __init__(
        self, *, database: Database, revocations: Revocations, limits: BodyLimits, clock: Clock
    ) -> None:
        self._database = database
        self._revocations = revocations
        self._limits = limits
        self._clock = clock

    async def get(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            return respond(await self._details(tx, request[PRINCIPAL]))

    async def change(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, OrganizationChange, self._limits)
        async with self._database.tx() as tx:
            changes = body.model_dump(exclude_none=True, by_alias=False)
            before = await accounts.organization(tx, principal.tenant_id, lock=True)
            if before is not None and changes.get("content_storage", before.content_storage) != (
                before.content_storage
            ):
                changes["content_storage_since"] = self._clock.now()
            await accounts.update_organization(tx, principal.tenant_id, changes)
            details = await self._details(tx, principal)
            await note(
                tx,
                request,
                "organization",
                principal.tenant_id,
                before=None if before is None else OrganizationView.of(before),
                after=details.model_dump(
                    mode="json", by_alias=True, exclude={"usage", "content_erasure"}
                ),
            )
            _, people = await platform.credentials(tx, principal.tenant_id)
        if before is not None and before.pii_masking != details.pii_masking:
            # It is remembered with each credential.
            await self._revocations.tell(users=people)
        return respond(details)

    async def _details(self, tx: AsyncConnection, principal: Principal) -> OrganizationDetails:
        organization = await accounts.organization(tx, principal.tenant_id)
        if organization is None:
            raise NotFound("The organization does not exist any more.")
        zone = ZoneInfo(organization.timezone)
        now = self._clock.now()
        month = month_at(now, zone)
        connected = await instances.count(tx, principal.tenant_id)
        sent = await usage.of_month(tx, principal.tenant_id, month.first)
        plan = PLANS[organization.plan]
        return OrganizationDetails(
            **OrganizationView.of(organization).model_dump(by_alias=False),
            content_erasure=ErasureView.of(
                organization, await accounts.erasure(tx, principal.tenant_id)
            ),
            usage=Usage(
                instances=Quota(
                    used=connected,
                    limit=plan.instances,
                    remaining=max(0, plan.instances - connected),
                ),
                messages=MessageQuota(
                    used=sent,
                    limit=plan.messages,
                    remaining=max(0, plan.messages - sent),
                    resets_at=month.ends,
                ),
            ),
        )
