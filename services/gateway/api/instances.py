"""Instances: made, listed, changed, deleted."""

from uuid import UUID

from aiohttp import web
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.once import Once
from services.gateway.api.revocation import Revocations
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.instances import InstanceChange, InstanceView, NewInstance
from services.gateway.api.secret_settings import InstanceSecrets
from services.gateway.api.seen import all_seen, seen
from services.gateway.domain.engines import ENGINES, Engine, masked, secrets_changed, shown, stored
from services.gateway.domain.plans import PLANS, QuotaExceeded
from services.gateway.domain.principal import scope_of
from services.gateway.store import accounts, instances, keys
from services.gateway.store.instances import Instance
from shared.broker.topology import shard_queue
from shared.clock import Clock
from shared.contracts.commands import DisconnectInstance
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import NotFound
from shared.ids import new_id
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.web.body import BodyLimits, invalid, read_model, read_query
from shared.web.edge import REQUEST_ID
from shared.web.envelope import respond, respond_page
from shared.web.pagination import Keyset, PageQuery
from shared.web.problems import fields_of

log = get_logger()

_POSITIONS: Keyset[UUID] = Keyset("instances", TypeAdapter(UUID))


class Instances:
    """``/api/instances`` and ``/api/instance/info``."""

    def __init__(
        self,
        *,
        database: Database,
        secrets: InstanceSecrets,
        once: Once,
        revocations: Revocations,
        relay: Relay,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._once = once
        self._revocations = revocations
        self._relay = relay
        self._limits = limits
        self._clock = clock

    async def create(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        body = await read_model(request, NewInstance, self._limits)
        engine = ENGINES.get(body.engine)
        if engine is None:
            known = ", ".join(sorted(ENGINES))
            raise invalid({"engine": f"is not an engine that we know; there are: {known}"})
        settings = _checked(engine, body.settings)

        async def work(tx: AsyncConnection) -> InstanceView:
            await _require_room(tx, principal.tenant_id)
            now = self._clock.now()
            id_ = new_id()
            instance = Instance(
                id=id_,
                tenant_id=principal.tenant_id,
                name=body.name,
                engine=engine.name,
                phone_number=body.phone_number,
                settings=self._secrets.sealed(engine, settings, principal.tenant_id, id_),
                guard=engine.guard.stored,
                shard=await instances.least_loaded_shard(tx),
                connected=False,
                created_at=now,
                updated_at=now,
            )
            await instances.add(tx, instance)
            await note(tx, request, "instance", instance.id, after=_facts(instance))
            return InstanceView.of(instance)

        return await self._once.run(request, body, work, principal=principal)

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, PageQuery)
        after = _POSITIONS.decode(query.cursor) if query.cursor else None
        async with self._database.tx() as tx:
            rows = await instances.page(
                tx, scope_of(request[PRINCIPAL]), after=after, limit=query.limit + 1
            )
        shown, pagination = _POSITIONS.page(rows, limit=query.limit, position=lambda row: row.id)
        return respond_page(all_seen(request, [InstanceView.of(row) for row in shown]), pagination)

    async def get(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            return respond(seen(request, InstanceView.of(await instance_in_path(tx, request))))

    async def change(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, InstanceChange, self._limits)
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request, lock=True)
            changes: dict[str, object] = {}
            if body.name is not None:
                changes["name"] = body.name
            if body.phone_number is not None:
                changes["phone_number"] = body.phone_number
            if body.settings is not None:
                changes["settings"] = self._resettled(instance, body.settings)
            wish = self._clock.now() if changes.keys() - {"name"} else None
            await instances.change(tx, instance.id, changes, now=wish)
            changed = await instance_in_path(tx, request)
            after = _facts(changed)
            if names := secrets_changed(instance.engine, instance.settings, changed.settings):
                after["settingsReplaced"] = names
            await note(tx, request, "instance", instance.id, before=_facts(instance), after=after)
        await self._revocations.tell(instances=[instance.id])
        return respond(InstanceView.of(changed))

    def _resettled(self, instance: Instance, given: dict[str, object]) -> dict[str, object]:
        """New settings in the place of the old, as they are stored.

        Secrets that are left out stay: nobody can read them, so as to send them again.
        """
        engine = _engine_of(instance)
        kept = self._secrets.opened(instance)
        settings = _checked(engine, {**kept, **given})
        return self._secrets.sealed(
            engine, settings, instance.tenant_id, instance.id, before=instance.settings, kept=kept
        )

    async def delete(self, request: web.Request) -> web.StreamResponse:
        now = self._clock.now()
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request, lock=True)
            gone = {
                "connected": False,
                "deleted_at": now,
                # The proxy stays for a while: the device is unlinked by it (``Forget``).
                "settings": shown(instance.engine, instance.settings),
            }
            await instances.change(tx, instance.id, gone, now=now)
            revoked = await keys.revoke(tx, instance.id, now=now)
            await note(tx, request, "instance", instance.id, before=_facts(instance))
            command = DisconnectInstance(instance_id=instance.id, request_id=request[REQUEST_ID])
            row = outbox.command(command, to=shard_queue(instance.shard))
            await outbox.add(tx, GatewayOutboxRow, [row], now=now)
        self._relay.wake()
        await self._revocations.tell(keys=revoked, instances=[instance.id])
        log.info("instance_deleted", instance_id=str(instance.id), keys_revoked=len(revoked))
        return respond(Deleted(id=instance.id))


def _facts(instance: Instance) -> dict[str, object]:
    """What the audit log keeps of an instance: what its owner has said, and no secret of that,
    whatever its name.
    """
    return {
        "name": instance.name,
        "engine": instance.engine,
        "phoneNumber": instance.phone_number,
        "settings": masked(instance.engine, instance.settings),
    }


async def _require_room(tx: AsyncConnection, tenant_id: UUID) -> None:
    """Raise ``QuotaExceeded`` if the plan allows no more; others wait here until the commit."""
    organization = await accounts.organization(tx, tenant_id, lock=True)
    if organization is None:
        raise NotFound("The organization does not exist any more.")
    plan = PLANS[organization.plan]
    used = await instances.count(tx, tenant_id)
    if used >= plan.instances:
        raise QuotaExceeded(
            f"The plan {plan.name} has {plan.instances} instances; delete one.",
            data={"used": used, "limit": plan.instances, "resetsAt": None},
        )


def _engine_of(instance: Instance) -> Engine:
    engine = ENGINES.get(instance.engine)
    if engine is None:
        raise invalid({"settings": "cannot be changed: this instance's engine is not known here"})
    return engine


def _checked(engine: Engine, settings: dict[str, object] | None) -> dict[str, object]:
    """The settings as they are stored, if the engine knows them all."""
    try:
        return stored(engine.settings.model_validate(settings or {}, by_alias=True, by_name=False))
    except ValidationError as error:
        fields = {f"settings.{name}": wrong for name, wrong in fields_of(error).items()}
        raise invalid(fields) from None
