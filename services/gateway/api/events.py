"""The organization's event log: whoever was away catches up from a cursor."""

from typing import Annotated, Final
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import AfterValidator, Field, TypeAdapter

from services.gateway.api.callers import Callers, shown_token
from services.gateway.api.feed import Feed
from services.gateway.api.gate import PRINCIPAL
from services.gateway.domain.access import ACCESS, Needs, require
from services.gateway.domain.event_names import checked, selection
from services.gateway.domain.masking import Sight, sight_of
from services.gateway.domain.principal import Principal, scope_of
from services.gateway.store import events
from services.gateway.store.events import LoggedEvent, LogPage
from shared.clock import Clock
from shared.db.database import Database
from shared.errors import BadRequest
from shared.security.sealing import KeyRing
from shared.web.body import read_query
from shared.web.envelope import Pagination, respond_page
from shared.web.pagination import Keyset, Number
from shared.web.schemas import ApiModel, ApiView, Instant

POSITIONS: Final[Keyset[int]] = Keyset("events", TypeAdapter(Number))
"""Cursors: the number of an event in the log, for live clients as for pages."""


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

    def __init__(
        self, *, database: Database, ring: KeyRing, feed: Feed, callers: Callers, clock: Clock
    ) -> None:
        self._database = database
        self._ring = ring
        self._feed = feed
        self._callers = callers
        self._clock = clock

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, EventsQuery)
        principal = request[PRINCIPAL]
        after = POSITIONS.decode(query.after, field="after") if query.after else None
        found = await self._look(principal, query, after=after)
        if query.wait and not found.events and not self._feed.closed:
            principal, found = await self._wait(request, query, found)
        shown, has_more = found.events[: query.limit], len(found.events) > query.limit
        pagination = Pagination(
            limit=query.limit,
            # With nothing left, from where the log ended: an organization where nothing happens
            # for days must not find that its cursor has become too old.
            next_cursor=POSITIONS.encode(shown[-1].sequence if has_more else found.head),
            has_more=has_more,
        )
        sight = sight_of(principal)
        return respond_page([_shown(event, sight) for event in shown], pagination)

    async def _wait(
        self, request: web.Request, query: EventsQuery, found: LogPage
    ) -> tuple[Principal, LogPage]:
        """Events, as soon as there are any; none when the wait is over. Holds no connection.

        They are for whoever the caller is by then: while they wait a login may end, and an
        instance be taken from them.
        """
        principal = request[PRINCIPAL]
        deadline = self._clock.monotonic() + query.wait
        scope = scope_of(principal).only(query.instance_id)
        async with self._feed.waiting(scope, selection(query.types)) as waiter:
            while not found.events and not self._feed.closed:
                waiter.clear()
                principal = await self._callers.holder(shown_token(request))
                require(principal, ACCESS[Needs.READ])
                found = await self._look(principal, query, after=found.head)
                left = deadline - self._clock.monotonic()
                if found.events or left <= 0:
                    break
                await waiter.wait(left)
        return principal, found

    async def _look(
        self, principal: Principal, query: EventsQuery, *, after: int | None
    ) -> LogPage:
        async with self._database.tx() as tx:
            found = await events.page(
                tx,
                scope_of(principal).only(query.instance_id),
                selection(query.types),
                ring=self._ring,
                after=after or 0,
                limit=query.limit + 1,
            )
        if after is not None and not found.follows(after):
            raise cursor_lost(found)
        return found


def _shown(event: LoggedEvent, sight: Sight) -> orjson.Fragment | dict[str, object]:
    if sight.whole:
        return orjson.Fragment(event.body)
    return sight.envelope(orjson.loads(event.body))


def cursor_lost(log: LogPage) -> BadRequest:
    """Going on from a cursor would skip something without a word; so it is said."""
    return BadRequest(
        "This cursor does not lead on: the log does not reach back so far, or is another one"
        " since a restore. Events may be missing: go on from `data.oldestCursor`, which is the"
        " oldest that is kept, and read what else you need from GET /api/messages.",
        data={"reason": "cursor_expired", "oldestCursor": POSITIONS.encode(log.forgotten)},
    )
