"""Writing down who did what.

A route that changes something declares ``audited="instance.created"``, and its handler says what
was changed, within the transaction that changes it::

    await note(tx, request, "instance", instance.id, after=facts)

Whoever called, from where, under which request and when is known already. What a test finds to be
neither declared nor among ``UNAUDITED`` is not served.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.addresses import client_address
from services.gateway.domain.auditing import STRANGER, Actor, Entry, Security, actor_of
from services.gateway.domain.principal import Principal
from services.gateway.domain.redaction import Facts
from services.gateway.store import audit
from services.gateway.store.sightings import Sightings
from shared.clock import Clock
from shared.contracts.envelope import Emitted
from shared.contracts.events import SecurityViolation, Violation
from shared.db.database import Database
from shared.errors import Transient
from shared.ids import id_of, new_id
from shared.log import get_logger
from shared.web.edge import REQUEST_ID

log = get_logger()

_MESSAGES: Final = "what is sent is a message of its own, with a timeline"
_READS: Final = "reads by POST"

UNAUDITED: Final[Mapping[str, str]] = {
    "POST /api/auth/refresh": "goes on with a login that was noted; a reuse is noted",
    "POST /api/messages/text": _MESSAGES,
    "POST /api/messages/image": _MESSAGES,
    "POST /api/messages/video": _MESSAGES,
    "POST /api/messages/audio": _MESSAGES,
    "POST /api/messages/voice": _MESSAGES,
    "POST /api/messages/document": _MESSAGES,
    "POST /api/messages/sticker": _MESSAGES,
    "POST /api/messages/send": _MESSAGES,
    "POST /api/messages/location": _MESSAGES,
    "POST /api/messages/contact": _MESSAGES,
    "POST /api/messages/poll": _MESSAGES,
    "POST /api/messages/reaction": _MESSAGES,
    "POST /api/instances/{id}/send-message": _MESSAGES,
    "PUT /api/messages/{id}": _MESSAGES,
    "DELETE /api/messages/{id}": _MESSAGES,
    "POST /api/messages/read": "passes at once, and shows in the chat",
    "POST /api/chats/presence": "passes at once, and shows in the chat",
    "POST /api/contacts/check": _READS,
    "POST /api/instances/{id}/test-connection": _READS,
    "POST /api/webhooks/whatsapp": "what WhatsApp tells becomes messages and receipts",
    "POST /api/sandbox/instances/{id}/inbound": "a message of a contact who does not exist",
}
"""Routes that change something, or seem to, and write no entry; and why."""

_Given = Facts | BaseModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What is known about a request before its handler runs."""

    auditing: "Auditing"
    action: str
    principal: Principal | None

    def entry(
        self,
        request: web.Request,
        resource_type: str,
        resource_id: object,
        *,
        before: _Given | None = None,
        after: _Given | None = None,
        tenant_id: UUID | None = None,
        actor: Actor | None = None,
    ) -> Entry:
        """An entry that the caller, unless somebody else is named, has done the action."""
        principal = self.principal
        if principal is not None:
            tenant_id = tenant_id or principal.tenant_id
            actor = actor or actor_of(principal)
        return self.auditing.entry(
            request,
            self.action,
            resource_type,
            resource_id,
            tenant_id=tenant_id,
            actor=actor or STRANGER,
            before=before,
            after=after,
        )


AUDIT: Final = web.RequestKey("audit", Trace)
"""There for every handler whose route declares an action."""


class Auditing:
    """Makes entries of requests; and notes what is seen without anything being changed."""

    def __init__(
        self, *, database: Database, sightings: Sightings, trusted_proxies: int, clock: Clock
    ) -> None:
        self._database = database
        self._sightings = sightings
        self._trusted_proxies = trusted_proxies
        self._clock = clock

    def entry(
        self,
        request: web.Request,
        action: str,
        resource_type: str,
        resource_id: object = None,
        *,
        tenant_id: UUID | None,
        actor: Actor,
        before: _Given | None = None,
        after: _Given | None = None,
    ) -> Entry:
        """An entry about this request, of this moment."""
        return Entry(
            id=new_id(),
            at=self._clock.now(),
            tenant_id=tenant_id,
            actor=actor,
            action=action,
            resource_type=resource_type,
            resource_id=None if resource_id is None else str(resource_id),
            before=_facts(before),
            after=_facts(after),
            address=client_address(request, trusted_proxies=self._trusted_proxies),
            request_id=request[REQUEST_ID],
        )

    def saw(
        self,
        request: web.Request,
        what: Security,
        resource_type: str,
        resource_id: object = None,
        *,
        tenant_id: UUID | None = None,
        actor: Actor = STRANGER,
        after: _Given | None = None,
        violation: Violation | None = None,
    ) -> None:
        """Note what has changed nothing: later, bounded, and without slowing the answer.

        With ``violation`` the organization is told by an event, once an hour for each resource.
        """
        entry = self.entry(
            request,
            what,
            resource_type,
            resource_id,
            tenant_id=tenant_id,
            actor=actor,
            after=after,
        )
        event = None if violation is None else violation_of(entry, violation)
        self._sightings.note(entry, event)

    async def add_alone(self, entry: Entry) -> None:
        """Write an entry about what was done outside of our database, in its own transaction.

        It is done, and its caller shall know that even if it cannot be written down. What is then
        missing stands in the service's own log.
        """
        try:
            async with self._database.tx() as tx:
                await audit.add(tx, entry)
        except Transient as error:
            log.warning("audit_not_written", action=entry.action, reason=error.message)


def violation_of(entry: Entry, violation: Violation) -> Emitted | None:
    """What the organization is told about an entry; nothing if there is none to tell.

    Whoever sees the same within the hour makes the same event.
    """
    if entry.tenant_id is None or entry.resource_id is None:
        return None
    hour = entry.at.replace(minute=0, second=0, microsecond=0)
    return Emitted(
        id=id_of(SecurityViolation.TYPE, violation, entry.resource_id, hour.isoformat()),
        event=SecurityViolation(
            violation=violation,
            resource_type=entry.resource_type,
            resource_id=entry.resource_id,
            address=entry.address,
        ),
        tenant_id=entry.tenant_id,
        instance_id=None,
        time=entry.at,
        subject=entry.resource_id,
        partition_key=entry.resource_id,
        correlation_id=entry.request_id,
    )


async def note(
    tx: AsyncConnection,
    request: web.Request,
    resource_type: str,
    resource_id: object,
    *,
    before: _Given | None = None,
    after: _Given | None = None,
    tenant_id: UUID | None = None,
    actor: Actor | None = None,
) -> None:
    """Write down, in the transaction of a change, that the route's action was done.

    ``before`` and ``after`` may be all that there is: what they have in common and what is secret
    is left out. ``tenant_id`` and ``actor`` are the caller's unless said otherwise, as they must
    be where nobody is known to call.
    """
    entry = request[AUDIT].entry(
        request,
        resource_type,
        resource_id,
        before=before,
        after=after,
        tenant_id=tenant_id,
        actor=actor,
    )
    await audit.add(tx, entry)


async def note_alone(
    request: web.Request, resource_type: str, resource_id: object, *, after: _Given | None = None
) -> None:
    """The same for what was done elsewhere, by an engine say, once it is known to be done."""
    trace = request[AUDIT]
    entry = trace.entry(request, resource_type, resource_id, after=after)
    await trace.auditing.add_alone(entry)


def _facts(given: _Given | None) -> Facts | None:
    if isinstance(given, BaseModel):
        return given.model_dump(mode="json", by_alias=True)
    return given
