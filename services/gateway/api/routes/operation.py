"""Statistics, the event log, the sandbox, and what is running."""

from collections.abc import Sequence

from services.gateway.api.dead_letters import (
    DeadLetters,
    DeadLettersQuery,
    DeadLetterView,
    Requeued,
)
from services.gateway.api.events import Events, EventsQuery, EventView
from services.gateway.api.health import Conditions, HealthView
from services.gateway.api.sandbox import Inbound, InboundView, Sandbox
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.instances import Asked
from services.gateway.api.stats import Stats, StatsQuery, StatsView
from services.gateway.api.version import Versions, VersionView
from services.gateway.api.workers import Ordered, WorkerOrder, Workers, WorkerView
from services.gateway.domain.access import Needs
from shared.web.routes import Route

_SANDBOXED = "/api/sandbox/instances/{id}"


def routes(
    stats: Stats,
    events: Events,
    sandbox: Sandbox,
    versions: Versions,
) -> Sequence[Route]:
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
            audited="instance.sandbox_scanned",
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


def upkeep(dead_letters: DeadLetters, workers: Workers, conditions: Conditions) -> Sequence[Route]:
    """What those use who keep it running."""
    return (
        *_dead_letters(dead_letters),
        *_workers(workers),
        Route(
            method="GET",
            path="/api/webhooks/health",
            handler=conditions.whole,
            summary="How the platform is doing",
            description="For dashboards; looked into once a second at most. Answers 200 whatever "
            "it says; load balancers and deployments ask `/health/ready`.",
            tag="Operation",
            permission=None,
            response=HealthView,
            limited=True,
            aliases=("/api/webhooks/whatsapp/health",),
        ),
    )


def _dead_letters(dead_letters: DeadLetters) -> Sequence[Route]:
    return (
        Route(
            method="GET",
            path="/api/dead-letters",
            handler=dead_letters.page,
            summary="What could not be processed, the latest first",
            description="Commands and events that a service has refused, or tried in vain. Their "
            "content is sealed and never shown. The platform's operator sees all; others see those "
            "that concern their organization alone.",
            tag="Operation",
            permission=Needs.ORGANIZATION,
            query=DeadLettersQuery,
            response=DeadLetterView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="POST",
            path="/api/dead-letters/{id}/requeue",
            handler=dead_letters.requeue,
            audited="dead_letter.requeued",
            summary="Put a dead letter back into its queue",
            description="Repair the cause first. It is delivered as if for the first time; should "
            "it die again, it is back in the list and `times` has grown. Asking twice puts it back "
            "once.",
            tag="Operation",
            permission=Needs.ORGANIZATION,
            response=Requeued,
            status=202,
            limited=True,
            errors=("CONFLICT",),
        ),
        Route(
            method="DELETE",
            path="/api/dead-letters/{id}",
            handler=dead_letters.delete,
            audited="dead_letter.deleted",
            summary="Throw a dead letter away",
            description="Its content is gone for good. That it was there can be seen for a week.",
            tag="Operation",
            permission=Needs.ORGANIZATION,
            response=Deleted,
            limited=True,
            errors=("CONFLICT",),
        ),
    )


def _workers(workers: Workers) -> Sequence[Route]:
    return (
        Route(
            method="GET",
            path="/api/workers",
            handler=workers.list,
            summary="The processes of all services, and what waits for them",
            description="For the platform's operator. An administrator sees, for each service, "
            "what of their organization waits, is under way and has failed today. A worker without "
            "a heartbeat for 15 seconds is `lost`, and an hour later not listed any more.",
            tag="Operation",
            permission=Needs.ORGANIZATION,
            response=WorkerView,
            paginated=True,
            limited=True,
            aliases=("/api/workers/whatsapp",),
        ),
        Route(
            method="POST",
            path="/api/workers",
            handler=workers.order,
            summary="Pause, resume or restart workers, or clear what they count as failed",
            description="Followed within a few seconds. `pause`: take no more work; what was "
            "accepted waits, also over a restart. `restart`: finish what is under way and end, to "
            "be started again by the supervisor. `clear_failed`: `failed` counts from zero; "
            "messages, deliveries, dead letters and metrics stay as they are.",
            tag="Operation",
            permission=Needs.OPERATE,
            audited="worker.ordered",
            request=WorkerOrder,
            response=Ordered,
            status=202,
            limited=True,
            errors=("CONFLICT", "NOT_FOUND"),
            aliases=("/api/workers/whatsapp",),
        ),
    )
