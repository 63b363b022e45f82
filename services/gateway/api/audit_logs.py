"""The audit log, for whoever may look into it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import TypeAdapter

from services.gateway.api import trickle
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.schemas.audit import AuditQuery, AuditView
from services.gateway.domain.principal import Principal, tenant_of_concern
from services.gateway.domain.spreadsheets import line
from services.gateway.store import audit
from services.gateway.store.audit import Logged, Wanted
from shared.db.database import Database
from shared.errors import Forbidden
from shared.web.body import invalid, read_query
from shared.web.envelope import Pagination, instant, respond_page
from shared.web.pagination import Keyset
from shared.web.schemas import Moment

CSV: Final = "text/csv"
# Lines of one file: what is more is asked for in parts, instead of ending somewhere unsaid.
MOST_LINES: Final = 50_000
# Entries that page and offset are told the number of.
MOST_COUNTED: Final = 1_000_000

_PORTION: Final = 500
_HEADER: Final = (
    "at",
    "action",
    "actorType",
    "userId",
    "email",
    "keyId",
    "resourceType",
    "resourceId",
    "before",
    "after",
    "address",
    "requestId",
    "organizationId",
    "times",
    "id",
)
_POSITIONS: Keyset[tuple[datetime, UUID]] = Keyset("audit", TypeAdapter(tuple[Moment, UUID]))


class AuditLogs:
    """``/api/audit-logs``. An operator sees every organization's, others see their own."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, AuditQuery)
        wanted = _wanted(query, request[PRINCIPAL])
        if query.format == "csv":
            return await self._csv(request, wanted)
        by_number = query.page is not None or query.offset is not None
        if by_number and query.cursor is not None:
            raise invalid({"cursor": "cannot go with page or offset; send one of them"})
        offset = query.offset or 0
        if query.page is not None:
            offset = (query.page - 1) * query.limit
        after = _POSITIONS.decode(query.cursor) if query.cursor else None
        async with self._database.tx() as tx:
            rows = await audit.page(tx, wanted, after=after, offset=offset, limit=query.limit + 1)
            total = await audit.count(tx, wanted, at_most=MOST_COUNTED) if by_number else None
        shown, pagination = _POSITIONS.page(rows, limit=query.limit, position=_position)
        if total is not None:
            pagination = Pagination(
                limit=query.limit,
                next_cursor=pagination.next_cursor,
                has_more=pagination.has_more,
                page=query.page or offset // query.limit + 1,
                total=total,
            )
        return respond_page([AuditView.of(row) for row in shown], pagination)

    async def _csv(self, request: web.Request, wanted: Wanted) -> web.StreamResponse:
        """The whole list as a file, read and sent in portions."""
        async with self._database.tx() as tx:
            lines = await audit.count(tx, wanted, at_most=MOST_LINES + 1)
        if lines > MOST_LINES:
            raise invalid(
                {"from": f"leads to more than {MOST_LINES} lines; ask for a shorter time"}
            )
        response = web.StreamResponse(
            headers={
                "Content-Type": f"{CSV}; charset=utf-8",
                "Content-Disposition": 'attachment; filename="audit-logs.csv"',
                "Cache-Control": "no-store",
            }
        )
        await trickle.prepare(request, response)
        text = line(_HEADER)
        after: tuple[datetime, UUID] | None = None
        left = MOST_LINES  # entries may be added meanwhile
        while True:
            async with self._database.tx() as tx:
                rows = await audit.page(tx, wanted, after=after, limit=min(_PORTION, left))
            await trickle.write(request, response, "".join((text, *_lines(rows))).encode())
            left -= len(rows)
            if len(rows) < _PORTION or left <= 0:
                break
            text, after = "", _position(rows[-1])
        await response.write_eof()
        return response


def _wanted(query: AuditQuery, principal: Principal) -> Wanted:
    own = tenant_of_concern(principal)
    if own is not None and query.tenant_id not in {None, own}:
        raise Forbidden("Only an operator sees other organizations; leave tenantId out.")
    return Wanted(
        tenant_id=own or query.tenant_id,
        user_id=query.user_id,
        action=query.action,
        resource_type=query.resource_type,
        resource_id=query.resource_id,
        since=_moment(query.from_),
        before=_moment(query.to, end=True),
    )


def _moment(when: datetime | date | None, *, end: bool = False) -> datetime | None:
    """A day begins at midnight in UTC, and as an end it is included."""
    if when is None or isinstance(when, datetime):
        return when
    day = when + timedelta(days=1) if end else when
    return datetime.combine(day, time(), UTC)


def _position(row: Logged) -> tuple[datetime, UUID]:
    return row.at, row.id


def _lines(rows: Sequence[Logged]) -> Iterator[str]:
    for row in rows:
        yield line(
            (
                instant(row.at),
                row.action,
                row.actor_type,
                row.user_id,
                row.email,
                row.key_id,
                row.resource_type,
                row.resource_id,
                None if row.before is None else orjson.dumps(row.before).decode(),
                None if row.after is None else orjson.dumps(row.after).decode(),
                row.address,
                row.request_id,
                row.tenant_id,
                row.times,
                row.id,
            )
        )
