"""The limits that protect an instance's number, and how it connects."""

from datetime import date

from aiohttp import web

from services.gateway.api.auditing import note
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.schemas.instances import (
    GuardChange,
    GuardDetails,
    GuardUsage,
    GuardView,
    WindowView,
)
from services.gateway.domain.capabilities import require
from services.gateway.domain.engines import capabilities
from services.gateway.domain.guard import Guard, next_slot, usage_of
from services.gateway.domain.proxies import masked, place_of
from services.gateway.store import guards, instances
from services.gateway.store.instances import Instance
from shared.clock import Clock
from shared.contracts.capabilities import Capability
from shared.contracts.guard import day_of
from shared.db.database import Database
from shared.security.egress import EgressPolicy, UrlRefused
from shared.security.sealing import KeyRing, proxy_place, seal_text
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.envelope import respond


class Guards:
    """``/api/instances/{id}/guard``. ``policy`` says where a proxy may be."""

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        policy: EgressPolicy,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._ring = ring
        self._policy = policy
        self._limits = limits
        self._clock = clock

    async def get(self, request: web.Request) -> web.StreamResponse:
        now = self._clock.now()
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            guard = Guard.model_validate(instance.guard)
            zone = await guards.zone(tx, instance.tenant_id)
            limits = guard.limits(today=day_of(now, zone=zone))
            used = await guards.used(tx, instance.id, limits, now=now)
            last = await guards.last(tx, instance.id)
            held_until = await guards.held_until(tx, instance.id)
        windows = {}
        for name, limit in limits.items():
            usage = usage_of(limit, used[name].count)
            windows[name] = WindowView(
                used=usage.used, limit=usage.limit, remaining=usage.remaining
            )
        return respond(
            GuardDetails(
                **dict(GuardView.of(guard)),
                usage=GuardUsage(
                    per_minute=windows["perMinute"],
                    per_hour=windows["perHour"],
                    per_day=windows["perDay"],
                    next_slot_at=next_slot(
                        guard, used, last=last, held_until=held_until, zone=zone, now=now
                    ),
                ),
            )
        )

    async def change(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, GuardChange, self._limits)
        if body.proxy is not None:
            self._vet(body.proxy.get_secret_value())
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request, lock=True)
            if body.proxy is not None or body.device_name is not None:
                require(instance.engine, capabilities(instance.engine), Capability.PROXY)
            guard = Guard.model_validate(instance.guard)
            zone = await guards.zone(tx, instance.tenant_id)
            today = day_of(self._clock.now(), zone=zone)
            changed = guard.model_copy(update=self._changes(instance, body, today=today))
            if changed.warm_up is not None and not changed.per_day:
                field = "perDay" if body.warm_up is None else "warmUp"
                raise invalid({field: "a warm-up needs a limit perDay that it grows to"})
            await instances.change(tx, instance.id, {"guard": changed.stored}, now=None)
            await note(
                tx,
                request,
                "instance",
                instance.id,
                before=GuardView.of(guard).model_dump(mode="json"),
                after=GuardView.of(changed).model_dump(mode="json"),
            )
        return respond(GuardView.of(changed))

    def _changes(self, instance: Instance, body: GuardChange, *, today: date) -> dict[str, object]:
        changes = body.changes(today=today)
        if "proxy" in changes:
            url = None if body.proxy is None else body.proxy.get_secret_value()
            place = proxy_place(instance.tenant_id, instance.id)
            changes["proxy"] = None if url is None else seal_text(self._ring, url, place)
            changes["proxy_shown"] = None if url is None else masked(url)
        return changes

    def _vet(self, proxy: str) -> None:
        """Refuse a proxy that is plainly inside; where a name leads, only who dials it can see."""
        place = place_of(proxy)
        host, _, port = place.rpartition(":")
        if host == "localhost" or host.endswith(".localhost"):
            place = f"127.0.0.1:{port}"
        try:
            self._policy.vet(f"https://{place}/")
        except UrlRefused as error:
            raise invalid({"proxy": error.message}) from None
