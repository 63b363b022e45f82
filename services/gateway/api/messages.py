"""Messages: listed, looked at, followed hop by hop."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from aiohttp import web
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.schemas.messages import (
    HopView,
    MessageQuery,
    MessageView,
    shown_address,
)
from services.gateway.domain.masking import Sight, masked, sight_of
from services.gateway.domain.permissions import KeyPermission
from services.gateway.domain.principal import Principal, Scope, scope_of
from services.gateway.domain.recipients import NotAnAddress, address_of
from services.gateway.domain.timeline import Hop, Milestones, origin_of, timeline
from services.gateway.store import accounts, journeys, messages
from services.gateway.store.messages import Message, Wanted
from shared.db.database import Database
from shared.errors import Conflict, Forbidden, NotFound
from shared.log import get_logger
from shared.messaging import words
from shared.messaging.contents import opened
from shared.security.sealing import KeyRing, Unsealable
from shared.web.body import invalid, read_query
from shared.web.envelope import Pagination, respond, respond_page
from shared.web.pagination import Keyset, Number

log = get_logger()

# A search for more is a text, and a page of it would find that as well.
MOST_ASKED: Final = 10

_POSITIONS: Keyset[int] = Keyset("messages", TypeAdapter(Number))


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """What a caller sees of messages."""

    ring: KeyRing
    sight: Sight

    def message(self, message: Message) -> MessageView:
        """A message as they see it."""
        view = MessageView.of(message, self._content(message) if self.sight.reads else None)
        if self.sight.masked:
            shown: dict[str, object] = {
                "from_": masked(view.from_),
                "to": masked(view.to),
                "chat_id": masked(view.chat_id),
            }
            if view.metadata is not None:
                shown["metadata"] = self.sight.data(view.metadata)
            if view.error is not None:
                told = {"message": masked(view.error.message)}
                shown["error"] = view.error.model_copy(update=told)
            view = view.model_copy(update=shown)
        return view

    def _content(self, message: Message) -> dict[str, object] | None:
        try:
            return opened(
                self.ring,
                message.tenant_id,
                message.id,
                sealed=message.sealed,
                plain=message.content,
            )
        except Unsealable:
            log.exception("message_not_readable", message_id=str(message.id))
            return None  # The list of all others is not to fail over one.

    def hop(self, hop: Hop) -> Hop:
        """One hop of its journey as they see it."""
        if self.sight.whole:
            return hop
        return replace(hop, details=self.sight.data(hop.details))


class Messages:
    """The routes that read messages."""

    def __init__(self, *, database: Database, ring: KeyRing) -> None:
        self._database = database
        self._ring = ring

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, MessageQuery)
        scope = scope_of(request[PRINCIPAL]).only(query.instance_id)
        wanted = _wanted(query)
        _check_guesses(query, wanted, sight_of(request[PRINCIPAL]))
        by_number = query.page is not None or query.offset is not None
        if by_number and query.cursor is not None:
            raise invalid({"cursor": "cannot go with page or offset; send one of them"})
        offset = query.offset or 0
        if query.page is not None:
            offset = (query.page - 1) * query.limit
        after = _POSITIONS.decode(query.cursor) if query.cursor else None
        if query.search is not None:
            if by_number:
                raise invalid({"search": "cannot go with page or offset; follow the cursor"})
            return await self._search(request, query, scope, query.search, after=after)
        async with self._database.tx() as tx:
            eyes = self._eyes(request[PRINCIPAL])
            rows = await messages.page(
                tx, scope, wanted, after=after, offset=offset, limit=query.limit + 1
            )
            total = await messages.count(tx, scope, wanted) if by_number else None
        shown, pagination = _POSITIONS.page(
            rows, limit=query.limit, position=lambda row: row.sequence
        )
        if total is not None:
            pagination = Pagination(
                limit=query.limit,
                next_cursor=pagination.next_cursor,
                has_more=pagination.has_more,
                page=query.page or offset // query.limit + 1,
                total=total,
            )
        return respond_page([eyes.message(row) for row in shown], pagination)

    async def _search(
        self,
        request: web.Request,
        query: MessageQuery,
        scope: Scope,
        search: str,
        *,
        after: int | None,
    ) -> web.StreamResponse:
        tenant_id = scope.tenant_id
        asked = words.of_query(search)
        if not asked:
            raise invalid({"search": "has no word in it; send letters or digits"})
        if len(asked) > MOST_ASKED:
            raise invalid({"search": f"has too many words; send at most {MOST_ASKED}"})
        keys = self._ring.index_keys(tenant_id)
        hashed = list(zip(*(words.hashes(key, asked) for key in keys), strict=True))
        async with self._database.tx() as tx:
            organization = await accounts.organization(tx, tenant_id)
            if organization is None or organization.content_storage != "encrypted":
                raise Conflict(
                    "Your organization keeps no content, so there is nothing to search. Have an"
                    ' admin send PUT /api/organization with {"contentStorage": "encrypted"}; what'
                    " is said from then on can be found."
                )
            eyes = self._eyes(request[PRINCIPAL])
            found = await messages.search(
                tx, scope, _wanted(query), hashed, after=after, limit=query.limit + 1
            )
        shown, pagination = _POSITIONS.page(
            found.messages, limit=query.limit, position=lambda row: row.sequence
        )
        if found.further is not None and not pagination.has_more:
            cursor = _POSITIONS.encode(found.further)
            pagination = Pagination(limit=query.limit, next_cursor=cursor, has_more=True)
        return respond_page([eyes.message(row) for row in shown], pagination)

    async def get(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            eyes = self._eyes(request[PRINCIPAL])
            return respond(eyes.message(await _message(tx, request)))

    async def timeline(self, request: web.Request) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        async with self._database.tx() as tx:
            message = await _message(tx, request)
            eyes = self._eyes(principal)
            handovers = await journeys.handovers(tx, message.id)
            attempts = await journeys.webhook_attempts(tx, principal.tenant_id, message.id)
            changes = await journeys.changes(tx, self._ring, message.id)
        if not _may_see_urls(principal):
            attempts = [
                replace(attempt, url=origin_of(attempt.url)) if attempt.url else attempt
                for attempt in attempts
            ]
        milestones = Milestones(
            inbound=message.direction == "inbound",
            status=message.status,
            created_at=message.created_at,
            sent_at=message.sent_at,
            delivered_at=message.delivered_at,
            read_at=message.read_at,
            failed_at=message.failed_at,
            error_code=message.error_code,
            error_message=message.error_message,
            edited_at=message.edited_at,
            revoked_at=message.revoked_at,
        )
        hops = timeline(milestones, handovers, attempts, changes)
        return respond([HopView.of(eyes.hop(hop)) for hop in hops])

    def _eyes(self, principal: Principal) -> Eyes:
        return Eyes(ring=self._ring, sight=sight_of(principal))


def _check_guesses(query: MessageQuery, wanted: Wanted, sight: Sight) -> None:
    """Refuse to say whether a guess is right to whom the answer is hidden."""
    if query.search is not None and not sight.reads:
        raise Forbidden(
            "Your organization hides from viewers what messages say, so you cannot search it; leave"
            " out `search`, or ask an admin for the role agent."
        )
    named = (wanted.sender, wanted.recipient, wanted.chat)
    if sight.masked and any(one is not None and masked(one) != one for one in named):
        raise Forbidden(
            "Your organization hides numbers from you, so you cannot look for one; leave out"
            " `from`, `to` and `contact`, or name a group."
        )


def _may_see_urls(principal: Principal) -> bool:
    """A key that may not set the webhook may not read it either: its URL may hold a secret."""
    return principal.instance_id is None or KeyPermission.WEBHOOK_CONFIGURE in principal.permissions


async def _message(tx: AsyncConnection, request: web.Request) -> Message:
    found = await messages.find(tx, scope_of(request[PRINCIPAL]), id_in_path(request))
    if found is None:
        raise NotFound("There is no such message; check the id.")
    return found


def _wanted(query: MessageQuery) -> Wanted:
    return Wanted(
        direction=query.direction,
        statuses=query.status,
        types=query.type,
        sender=None if query.from_ is None else shown_address(query.from_),
        recipient=None if query.to is None else shown_address(query.to),
        chat=None if query.contact is None else _chat(query.contact),
        since=_moment(query.from_date),
        before=_moment(query.to_date, end=True),
    )


def _chat(contact: str) -> str:
    try:
        return address_of(contact).chat
    except NotAnAddress as error:
        raise invalid({"contact": str(error)}) from None


def _moment(when: datetime | date | None, *, end: bool = False) -> datetime | None:
    """A day begins at midnight in UTC, and as an end it is included."""
    if when is None or isinstance(when, datetime):
        return when
    day = when + timedelta(days=1) if end else when
    return datetime.combine(day, time(), UTC)
