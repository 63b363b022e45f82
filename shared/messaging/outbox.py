"""The outbox: what is committed and not yet told. It leaves when the broker has confirmed it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.broker.port import Broker, Outgoing
from shared.broker.topology import BATCHES, COMMANDS, EVENTS
from shared.clock import Clock
from shared.contracts import envelope
from shared.contracts.envelope import Emitted
from shared.contracts.model import Command
from shared.db.database import Database, HotConnection
from shared.db.tables.base import OutboxColumns
from shared.errors import Transient
from shared.ids import id_of, new_id
from shared.log import get_logger
from shared.metrics import MessagingMetrics
from shared.nudge import Nudge

log = get_logger()

CLAIM_LIMIT: Final = 500
# An event is about 1 KB, so a batch stays far below what RabbitMQ carries with ease.
BATCH_LIMIT: Final = 200
IDLE: Final = timedelta(seconds=1)
AFTER_FAILURE: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Pending:
    """One row of an outbox."""

    id: UUID
    kind: str
    name: str
    routing_key: str
    body: bytes


def event(emitted: Emitted) -> Pending:
    """An event on its way out."""
    return Pending(emitted.id, "event", emitted.name, emitted.routing_key, envelope.encode(emitted))


def command(command: Command, *, to: str) -> Pending:
    """A command on its way to the queue that ``to`` is bound to."""
    return Pending(new_id(), "command", command.TYPE, to, command.model_dump_json().encode())


async def add(
    tx: AsyncConnection, table: type[OutboxColumns], rows: Iterable[Pending], *, now: datetime
) -> None:
    """Put rows into a service's outbox, in the transaction of their cause."""
    values = [
        {
            "id": row.id,
            "kind": row.kind,
            "name": row.name,
            "routing_key": row.routing_key,
            "body": row.body,
            "created_at": now,
        }
        for row in rows
    ]
    if values:
        await tx.execute(insert(table), values)


async def add_hot(
    connection: HotConnection, schema: str, rows: Sequence[Pending], *, now: datetime
) -> None:
    """The same on a bare connection, all rows in one statement."""
    if not rows:
        return
    await connection.execute(
        f"""
        INSERT INTO {schema}.outbox (id, kind, name, routing_key, body, created_at)
        SELECT u.id, u.kind, u.name, u.routing_key, u.body, $6
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[])
            AS u (id, kind, name, routing_key, body)
        """,  # noqa: S608 - the schema is a constant of ours
        [row.id for row in rows],
        [row.kind for row in rows],
        [row.name for row in rows],
        [row.routing_key for row in rows],
        [row.body for row in rows],
        now,
    )


class Relay:
    """Publishes one service's outbox.

    Rows are claimed by deleting them, and the deletion is committed after the broker's confirms: a
    crash in between publishes twice, never not at all. Claiming by ``seq > last`` would lose rows
    that commit late. Several relays may work on one outbox.
    """

    def __init__(
        self,
        *,
        database: Database,
        broker: Broker,
        schema: str,
        clock: Clock,
        metrics: MessagingMetrics,
    ) -> None:
        self._database = database
        self._broker = broker
        self._schema = schema
        self._clock = clock
        self._metrics = metrics
        self._nudge = Nudge()

    def wake(self) -> None:
        """Say that rows have been committed, so that they need not wait for the sweep."""
        self._nudge.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            self._nudge.clear()
            try:
                published = await self.step()
            except Transient as error:
                log.warning("outbox_not_published", schema=self._schema, reason=error.message)
                await self._clock.sleep(AFTER_FAILURE)
                continue
            self._metrics.loop_succeeded.labels(f"{self._schema}_outbox").set(
                self._clock.now().timestamp()
            )
            if published < CLAIM_LIMIT:
                await self._nudge.wait(IDLE)

    async def step(self) -> int:
        """Publish what is there, at most ``CLAIM_LIMIT`` rows; return how many.

        Raises ``Transient``, and then nothing has left the outbox.
        """
        # A deletion that a crash undoes is published once more, which everybody stands.
        async with self._database.hot_tx(durable=False) as connection:
            rows = await connection.fetch(
                f"""
                WITH claimed AS (
                    SELECT seq FROM {self._schema}.outbox ORDER BY seq LIMIT $1
                    FOR UPDATE SKIP LOCKED
                )
                DELETE FROM {self._schema}.outbox o USING claimed c WHERE o.seq = c.seq
                RETURNING o.seq, o.id, o.kind, o.name, o.routing_key, o.body
                """,  # noqa: S608 - the schema is a constant of ours
                CLAIM_LIMIT,
            )
            if not rows:
                return 0
            rows.sort(key=lambda row: row[0])
            pending = [Pending(row[1], row[2], row[3], row[4], bytes(row[5])) for row in rows]
            await self._broker.publish(outgoing(pending))
        self._metrics.published.inc(len(rows))
        return len(rows)

    async def oldest_age(self) -> timedelta:
        """How long the oldest row has been waiting; zero if there is none."""
        async with self._database.hot() as connection:
            oldest = await connection.fetchval(
                f"SELECT created_at FROM {self._schema}.outbox ORDER BY seq LIMIT 1"  # noqa: S608
            )
        age = timedelta(0) if oldest is None else self._clock.now() - oldest
        self._metrics.outbox_age.set(age.total_seconds())
        return age

    async def check(self) -> None:
        """Readiness: raises ``Transient`` if something has waited for more than 30 s."""
        age = await self.oldest_age()
        if age > timedelta(seconds=30):
            raise Transient(
                f"The oldest unpublished message has waited {age.total_seconds():.0f} s."
            )


def outgoing(rows: Sequence[Pending]) -> list[Outgoing]:
    """The broker messages for some outbox rows.

    Commands go one by one. Events go one by one to subscribers, and once more, together with the
    others of their name, to our own services.
    """
    messages = []
    batches: dict[str, list[Pending]] = {}
    for row in rows:
        if row.kind == "command":
            messages.append(
                Outgoing(
                    exchange=COMMANDS,
                    routing_key=row.routing_key,
                    body=row.body,
                    message_id=str(row.id),
                    type=row.name,
                )
            )
            continue
        batches.setdefault(row.name, []).append(row)
        messages.append(
            Outgoing(
                exchange=EVENTS,
                routing_key=row.routing_key,
                body=row.body,
                message_id=str(row.id),
                type=row.name,
                content_type=envelope.STRUCTURED,
                mandatory=False,
            )
        )
    for name, members in batches.items():
        for start in range(0, len(members), BATCH_LIMIT):
            chunk = members[start : start + BATCH_LIMIT]
            messages.append(
                Outgoing(
                    exchange=BATCHES,
                    routing_key=name,
                    body=envelope.join([member.body for member in chunk]),
                    # Of all its members: a broker may take two messages of one id for one, and
                    # after a failure the same first event may come with more company than before.
                    message_id=str(id_of(*(member.id for member in chunk))),
                    type=name,
                    content_type=envelope.BATCH,
                )
            )
    return messages
