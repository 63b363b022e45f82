"""What stands before every handler: who calls, how often, and whether they may."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler
from structlog.contextvars import bind_contextvars

from services.gateway.api.addresses import client_address, counted_as
from services.gateway.api.auditing import AUDIT, Auditing, Trace
from services.gateway.api.callers import Callers
from services.gateway.domain.access import ACCESS, Needs, require
from services.gateway.domain.auditing import Security, actor_of
from services.gateway.domain.masking import sight_of
from services.gateway.domain.principal import Principal, PrincipalKind
from services.gateway.domain.route_groups import RouteGroup, groups_of
from services.gateway.store.keys import KeyUses
from shared.errors import Forbidden, NotFound, PlatformError, Unauthenticated
from shared.log import get_logger
from shared.web.edge import LOGGED
from shared.web.limits import Allowance, Limit, RateLimiter, enforce
from shared.web.routes import Route

log = get_logger()

PRINCIPAL: Final = web.RequestKey("principal", Principal)
"""Who is calling; there for every handler whose route has a permission."""

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)


class Gate:
    """Lets callers through to handlers, as the routes' declarations say."""

    def __init__(
        self,
        *,
        callers: Callers,
        limiter: RateLimiter,
        auditing: Auditing,
        uses: KeyUses,
        per_user: int,
        per_address: int,
        analytics_per_minute: int,
        admin_per_hour: int,
        callbacks_per_minute: int,
        trusted_proxies: int,
    ) -> None:
        self._callers = callers
        self._limiter = limiter
        self._auditing = auditing
        self._uses = uses
        self._user_limit = Limit(per_user, _MINUTE)
        self._address_limit = Limit(per_address, _MINUTE)
        self._group_limits = {
            RouteGroup.ANALYTICS: Limit(analytics_per_minute, _MINUTE),
            RouteGroup.ADMIN: Limit(admin_per_hour, _HOUR),
        }
        self._callback_limit = Limit(callbacks_per_minute, _MINUTE)
        self._trusted_proxies = trusted_proxies
        # One object for each limit in use: making one for every request would cost more than it.
        self._key_limits: dict[int, Limit] = {}

    def guard(self, routes: Iterable[Route]) -> list[Route]:
        """The same routes, with the gate before their handlers."""
        return [
            replace(
                route,
                handler=self._open(route)
                if route.permission is None
                else self._guarded(route, Needs(route.permission)),
            )
            for route in routes
        ]

    def address(self, request: web.Request) -> str:
        """Where the request came from."""
        return client_address(request, trusted_proxies=self._trusted_proxies)

    def _guarded(self, route: Route, needs: Needs) -> Handler:
        access = ACCESS[needs]
        groups = [(group, self._group_limits[group]) for group in groups_of(route.path)]
        callers, limiter, uses = self._callers, self._limiter, self._uses
        handler, action = route.handler, route.audited

        async def admitted(request: web.Request, principal: Principal) -> web.StreamResponse:
            bind_contextvars(**principal.facts)
            request[LOGGED] = principal.facts
            limit = self.limit(principal)
            if groups:
                narrower = [(f"{group}:{principal.limit_key}", most) for group, most in groups]
                await self._count(request, [(principal.limit_key, limit), *narrower])
            else:
                enforce(request, await limiter.hit(principal.limit_key, limit))
            try:
                require(principal, access)
            except Forbidden:
                self._saw_denied(request, principal, route)
                raise
            request[PRINCIPAL] = principal
            if action is not None:
                request[AUDIT] = Trace(auditing=self._auditing, action=action, principal=principal)
            if not sight_of(principal).masked:
                return await handler(request)
            try:
                return await handler(request)
            except PlatformError as error:
                # What WhatsApp says against something may name whom it is about.
                sight_of(principal).hide_in(error)
                raise

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                principal = await callers.caller(request)
            except (Unauthenticated, Forbidden):
                await self.count_stranger(request)
                raise
            if principal.kind is not PrincipalKind.INSTANCE_KEY or principal.key_id is None:
                return await admitted(request, principal)
            succeeded = False
            try:
                response = await admitted(request, principal)
                succeeded = response.status < 400
            finally:
                uses.count(principal.key_id, succeeded=succeeded)
            return response

        return handle

    def _open(self, route: Route) -> Handler:
        handler, action = route.handler, route.audited
        often = RouteGroup.CALLBACKS in groups_of(route.path)

        async def handle(request: web.Request) -> web.StreamResponse:
            await (self._count_callback(request) if often else self.count_stranger(request))
            if action is not None:
                request[AUDIT] = Trace(auditing=self._auditing, action=action, principal=None)
            return await handler(request)

        return handle

    def _saw_denied(self, request: web.Request, principal: Principal, route: Route) -> None:
        self._auditing.saw(
            request,
            Security.PERMISSION_DENIED,
            "route",
            f"{route.method} {route.path}",
            tenant_id=principal.tenant_id,
            actor=actor_of(principal),
        )

    async def _count(self, request: web.Request, limits: Sequence[tuple[str, Limit]]) -> None:
        """Count a request against several limits; against none of them if one refuses it."""
        for key, limit in limits:
            found = await self._limiter.look(key, limit)
            if not found.allowed:
                enforce(request, found)
        for key, limit in limits:
            enforce(request, await self._limiter.hit(key, limit))

    async def count_stranger(self, request: web.Request) -> None:
        """Count a request that shows nothing we know. Raises ``Throttled``."""
        enforce(request, await self.stranger(request))

    async def _count_callback(self, request: web.Request) -> None:
        """Count what may be WhatsApp's own; what turns out not to be is counted as a stranger's
        besides. That does not keep others out: WhatsApp has the same addresses for everybody.
        """
        key = f"callbacks:{counted_as(self.address(request))}"
        enforce(request, await self._limiter.hit(key, self._callback_limit))

    async def stranger(self, request: web.Request) -> Allowance:
        """Count it likewise, where there is no answer to put headers on."""
        key = f"address:{counted_as(self.address(request))}"
        return await self._limiter.hit(key, self._address_limit)

    def limit(self, principal: Principal) -> Limit:
        """How often the principal may call."""
        amount = principal.rate_limit
        if amount is None:
            return self._user_limit
        limit = self._key_limits.get(amount)
        if limit is None:
            limit = self._key_limits[amount] = Limit(amount, _HOUR)
        return limit


def id_in_path(request: web.Request, name: str = "id") -> UUID:
    """The id that a path names; what is none leads nowhere, like any that is unknown."""
    try:
        return UUID(request.match_info[name])
    except ValueError:
        raise NotFound(f"There is nothing at {request.path}; check the id.") from None
