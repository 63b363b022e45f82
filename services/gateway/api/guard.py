"""The limits that protect an instance's number."""

from aiohttp import web

from services.gateway.api.lookup import instance_in_path
from services.gateway.api.schemas.instances import (
    GuardChange,
    GuardDetails,
    GuardUsage,
    GuardView,
    WindowView,
)
from services.gateway.domain.guard import Guard, next_slot, usage_of
from services.gateway.store import guards, instances
from shared.clock import Clock
from shared.db.database import Database
from shared.web.body import BodyLimits, read_model
from shared.web.envelope import respond


class Guards:
    """``/api/instances/{id}/guard``."""

    def __init__(self, *, database: Database, limits: BodyLimits, clock: Clock) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    async def get(self, request: web.Request) -> web.StreamResponse:
        now = self._clock.now()
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request)
            guard = Guard.model_validate(instance.guard)
            limits: dict[str, int] = guard.model_dump(by_alias=True)
            used = await guards.used(tx, instance.id, limits, now=now)
            held_until = await guards.held_until(tx, instance.id)
        windows = {}
        for name, limit in limits.items():
            usage = usage_of(limit, used[name].count)
            windows[name] = WindowView(
                used=usage.used, limit=usage.limit, remaining=usage.remaining
            )
        return respond(
            GuardDetails(
                per_minute=guard.per_minute,
                per_hour=guard.per_hour,
                per_day=guard.per_day,
                usage=GuardUsage(
                    per_minute=windows["perMinute"],
                    per_hour=windows["perHour"],
                    per_day=windows["perDay"],
                    next_slot_at=next_slot(used, held_until=held_until, now=now),
                ),
            )
        )

    async def change(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, GuardChange, self._limits)
        async with self._database.tx() as tx:
            instance = await instance_in_path(tx, request, lock=True)
            changed = Guard.model_validate(instance.guard).model_copy(
                update=body.model_dump(exclude_none=True, by_alias=False)
            )
            await instances.change(
                tx, instance.id, {"guard": changed.model_dump(by_alias=True)}, now=None
            )
        return respond(GuardView.of(changed))
