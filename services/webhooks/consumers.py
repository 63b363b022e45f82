"""What the webhook service does about each message it receives."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import orjson

from services.webhooks.domain.delivery import Delivery
from services.webhooks.domain.endpoint import TEST, Endpoint
from services.webhooks.domain.payload import message_of
from services.webhooks.metrics import WebhooksMetrics
from services.webhooks.sender.directory import Directory
from services.webhooks.sender.worker import LEASE, Worker
from services.webhooks.store import deliveries as store
from services.webhooks.store.deliveries import NewDelivery
from shared.clock import Clock
from shared.contracts.commands import TestEndpoint
from shared.contracts.envelope import Carried
from shared.contracts.events import Test
from shared.contracts.model import rfc3339
from shared.contracts.public import public_event
from shared.db.database import Database
from shared.ids import new_id
from shared.log import get_logger
from shared.security.sealing import KeyRing

log = get_logger()

GREETING = "This is a test. If its signature verifies, your endpoint is ready."


class Consumers:
    """Makes deliveries. Each method stands repetition: an event finds its deliveries made."""

    def __init__(
        self,
        *,
        database: Database,
        ring: KeyRing,
        directory: Directory,
        worker: Worker,
        clock: Clock,
        metrics: WebhooksMetrics,
        timeout: timedelta,
    ) -> None:
        self._database = database
        self._ring = ring
        self._directory = directory
        self._worker = worker
        self._clock = clock
        self._metrics = metrics
        self._timeout = timeout

    async def events(self, batch: Sequence[Carried]) -> None:
        """Address each event to the endpoints that want it, all in one statement.

        What the worker has room for is claimed as it is made and posted as soon as that is
        committed; the rest waits in the table.
        """
        audiences = await self._directory.audiences({event.tenant_id for event in batch})
        addressed = [
            (event, endpoints)
            for event in batch
            if (endpoints := audiences[event.tenant_id].wanting(event.name, event.instance_id))
        ]
        if not addressed:
            return
        names = await self._directory.names(
            {event.instance_id for event, _ in addressed if event.instance_id is not None}
        )
        rows: list[NewDelivery] = []
        try:
            for event, endpoints in addressed:
                rows.extend(self._deliveries(event, endpoints, names))
            made = await self._insert(rows)
        except BaseException:
            for row in rows:
                if row.claimed:
                    self._worker.lanes.cancel(row.endpoint)
            raise
        self._start(rows, made)

    async def test_endpoint(self, command: TestEndpoint) -> None:
        """Deliver a test to one endpoint: now, once, and even if the endpoint is switched off."""
        endpoint = await self._directory.find(command.endpoint_id)
        if endpoint is None:
            log.warning("webhook_tested_in_vain", endpoint_id=str(command.endpoint_id))
            return
        body = orjson.dumps(
            public_event(
                event_id=command.event_id,
                name=TEST,
                instance_id=endpoint.instance_id,
                instance_name=await self._name_of(endpoint.instance_id),
                data=Test(message=GREETING).model_dump(mode="json", by_alias=True),
                timestamp=rfc3339(self._clock.now()),
            )
        )
        at_once = self._worker.may_test()
        row = NewDelivery(
            id=new_id(),
            endpoint=endpoint,
            event_id=command.event_id,
            event_type=TEST,
            instance_id=endpoint.instance_id,
            message_id=None,
            body=body,
            claimed=at_once,
        )
        made = await self._insert([row])
        if row.id in made and at_once:
            self._worker.test(endpoint, self._claimed(row))
        else:
            self._worker.hungry.set()

    def _deliveries(
        self, event: Carried, endpoints: Sequence[Endpoint], names: dict[UUID, str]
    ) -> list[NewDelivery]:
        body = orjson.dumps(
            public_event(
                event_id=event.id,
                name=event.name,
                instance_id=event.instance_id,
                instance_name=names.get(event.instance_id) if event.instance_id else None,
                data=event.data,
                timestamp=event.timestamp,
            )
        )
        message_id = message_of(event.data)
        return [
            NewDelivery(
                id=new_id(),
                endpoint=endpoint,
                event_id=event.id,
                event_type=event.name,
                instance_id=event.instance_id,
                message_id=message_id,
                body=body,
                claimed=self._worker.lanes.reserve(endpoint),
            )
            for endpoint in endpoints
        ]

    async def _insert(self, rows: Sequence[NewDelivery]) -> set[UUID]:
        async with self._database.hot() as connection:
            return await store.insert(
                connection,
                rows,
                ring=self._ring,
                worker=self._worker.name,
                lease=LEASE,
                now=self._clock.now(),
            )

    def _start(self, rows: Sequence[NewDelivery], made: set[UUID]) -> None:
        """After the commit: post what is claimed, forget what had been made before."""
        self._metrics.created.inc(len(made))
        waiting = False
        for row in rows:
            if not row.claimed:
                waiting = True
            elif row.id in made:
                self._worker.start(row.endpoint, self._claimed(row))
            else:
                self._worker.lanes.cancel(row.endpoint)
        if waiting:
            self._worker.hungry.set()

    def _claimed(self, row: NewDelivery) -> Delivery:
        return row.as_claimed(good_until=self._worker.good_until(timeout=self._timeout))

    async def _name_of(self, instance_id: UUID | None) -> str | None:
        if instance_id is None:
            return None
        return (await self._directory.names([instance_id])).get(instance_id)
