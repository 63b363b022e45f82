"""The one primary webhook of an instance, by user or by instance key."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from services.gateway.api.auditing import note
from services.gateway.api.gate import PRINCIPAL
from services.gateway.api.lookup import instance_in_path
from services.gateway.api.once import Once
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.webhooks import (
    CreatedWebhook,
    NewWebhook,
    TestResult,
    WebhookChange,
    WebhookView,
)
from services.gateway.store import webhooks
from services.gateway.store.webhooks import FirstAttempt, Webhook
from shared.clock import Clock
from shared.contracts.commands import TestEndpoint
from shared.db.database import Database
from shared.db.tables.gateway import GatewayOutboxRow
from shared.errors import Conflict, NotFound
from shared.ids import new_id
from shared.log import get_logger
from shared.messaging import outbox
from shared.messaging.outbox import Relay
from shared.security.egress import EgressPolicy, UrlRefused
from shared.security.sealing import KeyRing, Place
from shared.security.signatures import SECRETS, new_secret
from shared.web.body import BodyLimits, invalid, read_model
from shared.web.edge import REQUEST_ID
from shared.web.envelope import respond

log = get_logger()

# How often the attempts are looked at while a test is under way: soon at first, then more seldom.
_FIRST_LOOK: Final = timedelta(milliseconds=20)
_LONGEST_PAUSE: Final = timedelta(milliseconds=500)


class PrimaryWebhook:
    """``/api/webhook`` and ``/api/instances/{id}/webhook``."""

    def __init__(
        self,
        *,
        database: Database,
        once: Once,
        relay: Relay,
        ring: KeyRing,
        policy: EgressPolicy,
        test_deadline: timedelta,
        limits: BodyLimits,
        clock: Clock,
    ) -> None:
        self._database = database
        self._once = once
        self._relay = relay
        self._ring = ring
        self._policy = policy
        self._test_deadline = test_deadline
        self._limits = limits
        self._clock = clock

    async def create(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, NewWebhook, self._limits)
        self._vet(body.url)

        async def work(tx: AsyncConnection) -> CreatedWebhook:
            instance = await instance_in_path(tx, request)
            now = self._clock.now()
            secret = new_secret()
            webhook = Webhook(
                id=new_id(),
                tenant_id=instance.tenant_id,
                instance_id=instance.id,
                url=body.url,
                events=body.events,
                active=body.active,
                created_at=now,
                updated_at=now,
            )
            place = Place(webhook.tenant_id, SECRETS, str(webhook.id))
            sealed = self._ring.seal(secret.encode(), place)
            if not await webhooks.add_primary(tx, webhook, secret=sealed):
                raise Conflict("This instance has a webhook already; change it with PUT.")
            await note(tx, request, "webhook", webhook.id, after=_facts(webhook))
            log.info("webhook_created", webhook_id=str(webhook.id), instance_id=str(instance.id))
            return CreatedWebhook(
                id=webhook.id,
                url=webhook.url,
                events=webhook.events,
                active=webhook.active,
                secret=secret,
            )

        return await self._once.run(request, body, work, principal=request[PRINCIPAL])

    async def get(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            return respond(WebhookView.of(await _webhook(tx, request)))

    async def change(self, request: web.Request) -> web.StreamResponse:
        body = await read_model(request, WebhookChange, self._limits)
        if body.url is not None:
            self._vet(body.url)
        async with self._database.tx() as tx:
            webhook = await _webhook(tx, request)
            changes = body.model_dump(exclude_none=True, by_alias=False)
            await webhooks.change(tx, webhook.id, changes, now=self._clock.now())
            changed = await _webhook(tx, request)
            await note(
                tx,
                request,
                "webhook",
                webhook.id,
                before=_facts(webhook),
                after=_facts(changed),
            )
        return respond(WebhookView.of(changed))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        async with self._database.tx() as tx:
            webhook = await _webhook(tx, request)
            await webhooks.remove(tx, webhook.id)
            await note(tx, request, "webhook", webhook.id, before=_facts(webhook))
        log.info("webhook_deleted", webhook_id=str(webhook.id))
        return respond(Deleted(id=webhook.id))

    async def test(self, request: web.Request) -> web.StreamResponse:
        event_id = new_id()
        now = self._clock.now()
        async with self._database.tx() as tx:
            webhook = await _webhook(tx, request)
            command = TestEndpoint(
                endpoint_id=webhook.id, event_id=event_id, request_id=request[REQUEST_ID]
            )
            row = outbox.command(command, to="webhooks")
            await outbox.add(tx, GatewayOutboxRow, [row], now=now)
            await note(tx, request, "webhook", webhook.id)
        self._relay.wake()
        return respond(self._result(await self._first_attempt(webhook.id, event_id)))

    async def _first_attempt(self, endpoint_id: UUID, event_id: UUID) -> FirstAttempt | None:
        """What the first attempt found, or nothing if there was none in time."""
        deadline = self._clock.monotonic() + self._test_deadline.total_seconds()
        pause = _FIRST_LOOK
        while self._clock.monotonic() < deadline:
            await self._clock.sleep(pause)
            async with self._database.tx() as tx:
                found = await webhooks.first_attempt(tx, endpoint_id=endpoint_id, event_id=event_id)
            if found is not None:
                return found
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return None

    def _result(self, attempt: FirstAttempt | None) -> TestResult:
        if attempt is None:
            seconds = self._test_deadline.total_seconds()
            return TestResult(
                success=False,
                status_code=None,
                response_time=None,
                error=f"Nothing was known after {seconds:g} s; look at the webhook's deliveries.",
            )
        status = attempt.status_code
        error = attempt.error
        success = status is not None and 200 <= status < 300
        if not success and error is None:
            error = f"The endpoint answered {status}; it must answer with 2xx."
        return TestResult(
            success=success,
            status_code=status,
            response_time=attempt.duration_ms,
            error=None if success else error,
        )

    def _vet(self, url: str) -> None:
        try:
            self._policy.vet(url)
        except UrlRefused as refused:
            raise invalid({"url": refused.message}) from None


def _facts(webhook: Webhook) -> dict[str, object]:
    """What the audit log keeps of a webhook."""
    return {
        "instanceId": webhook.instance_id,
        "url": webhook.url,
        "events": webhook.events,
        "active": webhook.active,
    }


async def _webhook(tx: AsyncConnection, request: web.Request) -> Webhook:
    instance = await instance_in_path(tx, request)
    found = await webhooks.primary(tx, instance.tenant_id, instance.id)
    if found is None:
        raise NotFound(
            "This instance has no webhook; create one with POST.", code="CONFIG_NOT_FOUND"
        )
    return found
