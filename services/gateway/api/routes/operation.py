"""Statistics, the event log, the sandbox, and what is running."""

from collections.abc import Sequence

from services.gateway.api.events import Events, EventsQuery, EventView
from services.gateway.api.sandbox import Inbound, InboundView, Sandbox
from services.gateway.api.schemas.instances import Asked
from services.gateway.api.stats import Stats, StatsQuery, StatsView
from services.gateway.api.version import Versions, VersionView
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_SANDBOXED = "/api/sandbox/instances/{id}"


def routes(stats: Stats, events: Events, sandbox: Sandbox, versions: Versions) -> Sequence[Route]:
    """What is left."""
    return (
        Route(
            method="GET",
            path="/api/stats",
            handler=stats.get,
            summary="Messages sent and received: today, this week, this month, in all",
            description="In the organization's time zone. A range adds itself and a row per day.",
            tag="Statistics",
            permission=Needs.STATISTICS,
            query=StatsQuery,
            response=StatsView,
            limited=True,
        ),
        Route(
            method="GET",
            path="/api/events",
            handler=events.page,
            summary="The event log: catch up from a cursor, or wait for what comes",
            description="Kept for 7 days by default. An event that follows one you have seen never "
            "appears before it, so a cursor misses nothing. One older than the log is refused.",
            tag="Events",
            permission=Needs.READ,
            query=EventsQuery,
            response=EventView,
            paginated=True,
            limited=True,
            errors=("BAD_REQUEST", "ENGINE_UNAVAILABLE"),
        ),
        Route(
            method="POST",
            path=f"{_SANDBOXED}/scan",
            handler=sandbox.scan,
            summary="Scan a sandbox instance's QR code",
            description="For instances with `settings.autoScan: false`; others scan themselves.",
            tag="Sandbox",
            permission=Needs.PLAY,
            response=Asked,
            status=202,
            limited=True,
            errors=("CONFLICT",),
        ),
        Route(
            method="POST",
            path=f"{_SANDBOXED}/inbound",
            handler=sandbox.inbound,
            summary="Make a contact write, react, edit or revoke",
            tag="Sandbox",
            permission=Needs.PLAY,
            request=Inbound,
            response=InboundView,
            status=202,
            idempotent=True,
            limited=True,
            errors=("CONFLICT", "INSTANCE_NOT_READY"),
        ),
        Route(
            method="GET",
            path="/api/version",
            handler=versions.get,
            summary="What is running here",
            tag="Operation",
            permission=None,
            response=VersionView,
            limited=True,
        ),
    )
