"""The audit log."""

from collections.abc import Sequence

from services.gateway.api.audit_logs import CSV, AuditLogs
from services.gateway.api.schemas.audit import AuditQuery, AuditView
from services.gateway.domain.access import Needs
from shared.web.routes import Route


def routes(logs: AuditLogs) -> Sequence[Route]:
    """What there is under ``/api/audit-logs``."""
    return (
        Route(
            method="GET",
            path="/api/audit-logs",
            handler=logs.page,
            summary="Who did what to which resource, from where, when; latest first",
            description="With `format=csv` all that is asked for, as a file. An operator sees the"
            " entries of all organizations.",
            tag="Audit",
            permission=Needs.AUDIT,
            query=AuditQuery,
            response=AuditView,
            paginated=True,
            limited=True,
            raw={CSV: "The entries, one a line, at most 50,000."},
        ),
    )
