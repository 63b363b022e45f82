"""What there is: organizations and instances."""

from typing import Annotated
from uuid import UUID

import typer

from services.command_line.console import acting_as, run, show

Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, newest first.")]


def organizations(limit: Limit = 1000, as_json: Json = False) -> None:
    """List organizations: plan, people, instances, messages accepted in their current month."""
    show(
        run(_organizations(limit)),
        ("id", "name", "plan", "users", "instances", "messages"),
        as_json=as_json,
    )


def instances(
    organization: Annotated[UUID | None, typer.Option(help="Only of this one, by id.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this status, such as ready.")] = None,
    limit: Limit = 1000,
    as_json: Json = False,
) -> None:
    """List instances: whose they are, their engine, and how their connection is."""
    show(
        run(_instances(organization, status, limit)),
        ("id", "organization", "name", "engine", "status", "since"),
        as_json=as_json,
    )


async def _organizations(limit: int) -> list[dict[str, object]]:
    async with acting_as("gateway") as database, database.hot() as connection:
        rows = await connection.fetch(
            """
            SELECT o.id, o.name, o.plan,
                   (SELECT count(*) FROM gateway.users u WHERE u.tenant_id = o.id) AS users,
                   (SELECT count(*) FROM gateway.instances i
                    WHERE i.tenant_id = o.id AND i.deleted_at IS NULL) AS instances,
                   coalesce((SELECT m.accepted FROM gateway.message_usage m
                             WHERE m.tenant_id = o.id
                             AND m.month = date_trunc('month', now() AT TIME ZONE o.timezone)::date
                   ), 0) AS messages
            FROM gateway.organizations o ORDER BY o.id DESC LIMIT $1
            """,
            limit,
        )
    return [dict(row) for row in rows]


async def _instances(
    organization: UUID | None, status: str | None, limit: int
) -> list[dict[str, object]]:
    async with acting_as("gateway") as database, database.hot() as connection:
        rows = await connection.fetch(
            """
            SELECT i.id, i.tenant_id AS organization, i.name, i.engine,
                   coalesce(s.status, 'created') AS status, s.since
            FROM gateway.instances i
            LEFT JOIN sessions.session_states s ON s.instance_id = i.id
            WHERE i.deleted_at IS NULL
              AND ($1::uuid IS NULL OR i.tenant_id = $1)
              AND ($2::text IS NULL OR coalesce(s.status, 'created') = $2)
            ORDER BY i.id DESC LIMIT $3
            """,
            organization,
            status,
            limit,
        )
    return [dict(row) for row in rows]
