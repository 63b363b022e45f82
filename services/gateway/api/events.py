"""The organization's event log: whoever was away catches up from a cursor."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import AfterValidator, Field, TypeAdapter

from services.gateway.api.feed import Feed
from services.gateway.api.gate import PRINCIPAL
from services.gateway.domain.event_names import Selection, checked, selection
from services.gateway.domain.principal import Scope, scope_of
from services.gateway.store import events
from services.gateway.store.events import LoggedEvent
from shared.clock import Clock
from shared.db.database import Database
from shared.web.body import read_query
from shared.web.envelope import Pagination, respond_page
from shared.web.pagination import Keyset
from shared.web.schemas import ApiModel, ApiView, Instant

_POSITIONS: Keyset[int] = Keyset("events", TypeAdapter(int))


class EventsQuery(ApiModel):
    """Which events, oldest first. `nextCursor` is always there: go on asking from it."""

    after: str | None = Field(
        default=None,
        max_length=512,
        description="`nextCursor` of the page before; without it, from the oldest event kept.",
    )
    types: Annotated[list[str], AfterValidator(checked)] = Field(
        default=[],
        max_length=50,
        description="Names of events, or families such as `message.*`; all if left out.",
        examples=[["message.*"]],
    )
    instance_id: UUID | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    wait: float = Field(
        default=0,
        ge=0,
        le=30,
        description="Seconds to wait for an event if there is none yet.",
    )


class EventView(ApiView):
    """An event, as structured CloudEvents JSON; the same that subscribers get."""

    specversion: str = Field(examples=["1.0"])
    id: UUID
    source: str
    type: str = Field(examples=["dev.waypost.message.sent.v1"])
    subject: str
    time: Instant
    datacontenttype: str = Field(examples=["application/json"])
    dataschema: str
    tenantid: UUID
    instanceid: UUID | None = None
    partitionkey: str
    sequence: str
    traceparent: str
    correlationid: str
    data: dict[str, object]


class Events:
    """``/api/events``."""

    def __init__(self, *, database: Database, feed: Feed, clock: Clock) -> None:
        self._database = database
        self._feed = feed
        self._clock = clock

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, EventsQuery)
        scope = scope_of(request[PRINCIPAL]).only(query.instance_id)
        after = _POSITIONS.decode(query.after) if query.after else 0
        found = await self._found(
            scope, selection(query.types), after=after, limit=query.limit + 1, wait=query.wait
        )
        shown = found[: query.limit]
        pagination = Pagination(
            limit=query.limit,
            next_cursor=_POSITIONS.encode(shown[-1].sequence if shown else after),
            has_more=len(found) > query.limit,
        )
        return respond_page([orjson.Fragment(event.body) for event in shown], pagination)

    async def _found(
        self, scope: Scope, wanted: Selection, *, after: int, limit: int, wait: float
    ) -> Sequence[LoggedEvent]:
        """Events, as soon as there are any; none when the wait is over. Holds no connection."""
        deadline = self._clock.monotonic() + wait
        while True:
            turn = self._feed.turn()
            async with self._database.tx() as tx:
                found = await events.page(tx, scope, wanted, after=after, limit=limit)
            left = deadline - self._clock.monotonic()
            if found or left <= 0 or self._feed.closed:
                return found
            await self._feed.wait(turn, seconds=left)
