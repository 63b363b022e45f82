"""Phone mappings: which contact of an instance is which user of the organization."""

from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.once import Once
from services.gateway.api.schemas.fields import Deleted, PhoneNumber
from services.gateway.api.seen import all_seen
from services.gateway.domain.plans import QuotaExceeded
from services.gateway.store import phone_mappings
from services.gateway.store.phone_mappings import MOST, PhoneMapping
from shared.clock import Clock
from shared.contracts.envelope import Emitted
from shared.contracts.events import UserMapped
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import Conflict, NotFound
from shared.ids import id_of, new_id
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.web.body import BodyLimits, invalid, read_model, read_query
from shared.web.edge import REQUEST_ID
from shared.web.envelope import respond, respond_page
from shared.web.pagination import Keyset, PageQuery
from shared.web.schemas import ApiModel, ApiView, Instant

_POSITIONS: Keyset[UUID] = Keyset("phone_mappings", TypeAdapter(UUID))


class NewPhoneMapping(ApiModel):
    """A contact's number, and the user of the organization that it stands for."""

    phone_number: PhoneNumber
    user_id: UUID


class PhoneMappingView(ApiView):
    """A contact's number that stands for a user."""

    id: UUID
    instance_id: UUID
    phone_number: str
    user_id: UUID
    created_at: Instant

    @classmethod
    def of(cls, mapping: PhoneMapping) -> "PhoneMappingView":
        return cls(
            id=mapping.id,
            instance_id=mapping.instance_id,
            phone_number=mapping.phone_number,
            user_id=mapping.user_id,
            created_at=mapping.created_at,
        )


class PhoneMappings:
    """``/api/instances/{id}/phone-mappings``."""

    def __init__(
        self, *, database: Database, once: Once, relay: Relay, limits: BodyLimits, clock: Clock
    ) -> None:
        self._database = database
        self._once = once
        self._relay = relay
        self._limits = limits
        self._clock = clock

    async def create(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, NewPhoneMapping, self._limits)

        async def work(tx: AsyncConnection) -> PhoneMappingView:
            instance = await instance_in_path(tx, request, lock=True)
            if not await phone_mappings.is_member(tx, principal.tenant_id, body.user_id):
                raise invalid({"userId": "is no active user of your organization"})
            if await phone_mappings.count(tx, instance.id) >= MOST:
                raise QuotaExceeded(
                    f"An instance has {MOST} phone mappings at most; delete one.",
                    data={"used": MOST, "limit": MOST, "resetsAt": None},
                )
            mapping = PhoneMapping(
                id=new_id(),
                tenant_id=principal.tenant_id,
                instance_id=instance.id,
                phone_number=body.phone_number,
                user_id=body.user_id,
                created_at=self._clock.now(),
            )
            if not await phone_mappings.add(tx, mapping):
                raise Conflict("This number stands for a user already; delete that mapping first.")
            event = outbox.event(_mapped(mapping, request[REQUEST_ID]))
            await outbox.add(tx, GatewayOutboxRow, [event], now=mapping.created_at)
            view = PhoneMappingView.of(mapping)
            await note(tx, request, "phone_mapping", mapping.id, after=view)
            return view

        answer = await self._once.run(request, body, work, principal=principal)
        self._relay.wake()
        return answer

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, PageQuery)
        after = _POSITIONS.decode(query.cursor) if query.cursor else None
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            rows = await phone_mappings.page(tx, instance.id, after=after, limit=query.limit + 1)
        shown, pagination = _POSITIONS.page(rows, limit=query.limit, position=lambda row: row.id)
        return respond_page(
            all_seen(request, [PhoneMappingView.of(row) for row in shown]), pagination
        )

    async def delete(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            removed = await phone_mappings.remove(tx, instance.id, id_in_path(request, "mappingId"))
            if removed is None:
                raise NotFound("There is no such mapping; the list of the instance has its own.")
            await note(
                tx,
                request,
                "phone_mapping",
                removed.id,
                before=PhoneMappingView.of(removed),
            )
        return respond(Deleted(id=removed.id))


def _mapped(mapping: PhoneMapping, request_id: str) -> Emitted:
    return Emitted(
        id=id_of(UserMapped.TYPE, mapping.id),
        event=UserMapped(
            mapping_id=str(mapping.id),
            phone_number=mapping.phone_number,
            user_id=str(mapping.user_id),
        ),
        tenant_id=mapping.tenant_id,
        instance_id=mapping.instance_id,
        time=mapping.created_at,
        subject=str(mapping.id),
        partition_key=str(mapping.instance_id),
        correlation_id=request_id,
    )
