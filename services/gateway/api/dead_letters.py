"""Dead letters: what could not be processed, put back or thrown away by whoever answers for it."""

from datetime import datetime
from uuid import UUID

from aiohttp import web
from pydantic import Field, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.schemas.fields import Deleted
from services.gateway.domain.dead_letters import Handled
from services.gateway.domain.principal import Principal, tenant_of_concern
from services.gateway.store import dead_letters
from services.gateway.store.dead_letters import DeadLetter, Wanted
from shared.broker.topology import TOPOLOGY
from shared.clock import Clock
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import Conflict, NotFound
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Pending, Relay
from shared.security.sealing import KeyRing, Unsealable
from shared.web.body import read_query
from shared.web.envelope import respond, respond_page
from shared.web.pagination import Keyset, PageQuery
from shared.web.schemas import ApiView, Instant, Moment

log = get_logger()

_POSITIONS: Keyset[tuple[datetime, UUID]] = Keyset("dead-letters", TypeAdapter(tuple[Moment, UUID]))
_QUEUES = frozenset(queue.name for queue in TOPOLOGY.queues)


class DeadLettersQuery(PageQuery):
    """Without `status`, those that wait for somebody to decide."""

    queue: str | None = Field(default=None, max_length=255, examples=["webhooks.events"])
    type: str | None = Field(default=None, max_length=255, examples=["message.received"])
    since: Instant | None = Field(default=None, description="Only what has died since.")
    status: Handled | None = Field(default=None, description="Only what was handled so.")


class DeadLetterView(ApiView):
    """What could not be processed; never what it says.

    It is a command, or one event. `organizationId` and `instanceId` are null if it concerns
    several of them, or none that is known. `times` is how often it has died.
    """

    id: UUID
    queue: str = Field(examples=["webhooks.events"])
    type: str = Field(examples=["message.received"])
    message_id: UUID
    organization_id: UUID | None
    instance_id: UUID | None
    reason: str = Field(examples=["refused", "tried_in_vain"])
    why: str = Field(examples=["The body cannot be read as message.received."])
    size: int = Field(description="Bytes.")
    times: int = Field(examples=[1])
    first_died_at: Instant
    died_at: Instant
    status: str = Field(examples=["waiting", "requeued", "deleted"])
    handled_at: Instant | None

    @classmethod
    def of(cls, letter: DeadLetter) -> "DeadLetterView":
        return cls(
            id=letter.id,
            queue=letter.queue,
            type=letter.type,
            message_id=letter.message_id,
            organization_id=letter.tenant_id,
            instance_id=letter.instance_id,
            reason=letter.reason,
            why=letter.why,
            size=letter.size,
            times=letter.times,
            first_died_at=letter.first_died_at,
            died_at=letter.died_at,
            status=letter.handled or "waiting",
            handled_at=letter.handled_at,
        )


class Requeued(ApiView):
    """On its way to the queue that it came from."""

    id: UUID
    queue: str = Field(examples=["webhooks.events"])
    status: Handled


class DeadLetters:
    """``/api/dead-letters``. An operator handles everybody's, others those of their tenant."""

    def __init__(self, *, database: Database, relay: Relay, ring: KeyRing, clock: Clock) -> None:
        self._database = database
        self._relay = relay
        self._ring = ring
        self._clock = clock

    async def page(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, DeadLettersQuery)
        after = _POSITIONS.decode(query.cursor) if query.cursor else None
        wanted = Wanted(
            tenant_id=tenant_of_concern(request[PRINCIPAL]),
            handled=query.status,
            queue=query.queue,
            type=query.type,
            since=query.since,
        )
        async with self._database.tx() as tx:
            rows = await dead_letters.page(tx, wanted, after=after, limit=query.limit + 1)
        shown, pagination = _POSITIONS.page(
            rows, limit=query.limit, position=lambda row: (row.died_at, row.id)
        )
        return respond_page([DeadLetterView.of(row) for row in shown], pagination)

    async def requeue(self, request: web.Request) -> web.StreamResponse:
        """Put a letter back; once it is, asking again changes nothing."""
        now = self._clock.now()
        async with self._database.tx() as tx:
            letter, sealed = await self._handled_by(tx, request)
            if letter.queue not in _QUEUES:
                raise Conflict(f"This version has no queue {letter.queue}; delete the letter.")
            if sealed is not None:
                row = Pending(
                    letter.message_id,
                    letter.kind,
                    letter.type,
                    letter.queue,
                    self._opened(letter, sealed),
                )
                await outbox.add(tx, GatewayOutboxRow, [row], now=now, ring=self._ring)
                await dead_letters.handle(tx, letter.id, Handled.REQUEUED, now=now)
                await self._note(tx, request, letter)
        self._relay.wake()
        log.info("dead_letter_requeued", queue=letter.queue, message_id=str(letter.message_id))
        return respond(
            Requeued(id=letter.id, queue=letter.queue, status=Handled.REQUEUED), status=202
        )

    async def delete(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            letter, _ = await self._handled_by(tx, request)
            if letter.handled == Handled.REQUEUED:
                raise Conflict("It has been put back already; there is nothing left to delete.")
            await dead_letters.handle(tx, letter.id, Handled.DELETED, now=self._clock.now())
            await self._note(tx, request, letter)
        log.info("dead_letter_deleted", queue=letter.queue, message_id=str(letter.message_id))
        return respond(Deleted(id=letter.id))

    async def _handled_by(
        self, tx: AsyncConnection, request: web.Request
    ) -> tuple[DeadLetter, bytes | None]:
        """The letter that the path names, locked; raises ``NotFound``."""
        principal: Principal = request[PRINCIPAL]
        found = await dead_letters.locked(
            tx, id_in_path(request), tenant_id=tenant_of_concern(principal)
        )
        if found is None or found[0].handled == Handled.DELETED:
            raise NotFound("There is no such dead letter; GET /api/dead-letters lists them.")
        return found

    async def _note(self, tx: AsyncConnection, request: web.Request, letter: DeadLetter) -> None:
        """For the organization that it concerned, whoever did it."""
        await note(
            tx,
            request,
            "dead_letter",
            letter.id,
            before={"queue": letter.queue, "type": letter.type, "reason": letter.reason},
            tenant_id=letter.tenant_id,
        )

    def _opened(self, letter: DeadLetter, sealed: bytes) -> bytes:
        try:
            return self._ring.open(sealed, dead_letters.place(letter.id, letter.tenant_id))
        except Unsealable:
            raise Conflict(
                "It was sealed under a key that ENCRYPTION_KEYS has no more; add that again, or"
                " delete the letter."
            ) from None
