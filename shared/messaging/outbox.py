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
from shared.security.sealing import NOBODY, KeyRing, Place, Unsealable, is_sealed

log = get_logger()

CLAIM_LIMIT: Final = 500
JSON: Final = "application/json"
# An event is about 1 KB, so a batch stays far below what RabbitMQ carries with ease.
BATCH_LIMIT: Final = 200
IDLE: Final = timedelta(seconds=1)
AFTER_FAILURE: Final = timedelta(seconds=1)
# What has waited for so long is nobody's any more: its process died, or the broker was away.
LEFT_BEHIND: Final = timedelta(seconds=5)
FRESH_LIMIT: Final = 20_000


@dataclass(frozen=True, slots=True)
class Pending:
    """One row of an outbox. A ``batch`` is of events, and goes to one queue alone."""

    id: UUID
    kind: str
    name: str
    routing_key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it stands in the table."""

    seq: int
    pending: Pending


def event(emitted: Emitted) -> Pending:
    """An event on its way out."""
    return Pending(emitted.id, "event", emitted.name, emitted.routing_key, envelope.encode(emitted))


def command(command: Command, *, to: str) -> Pending:
    """A command on its way to the queue that ``to`` is bound to."""
    return Pending(new_id(), "command", command.TYPE, to, command.model_dump_json().encode())


async def add(
    tx: AsyncConnection,
    table: type[OutboxColumns],
    rows: Iterable[Pending],
    *,
    now: datetime,
    ring: KeyRing | None = None,
) -> None:
    """Put rows into a service's outbox, in the transaction of their cause.

    With a ``ring`` they are sealed: what customers say may have to wait here for a broker that is
    away.
    """
    values = [
        {
            "id": row.id,
            "kind": row.kind,
            "name": row.name,
            "routing_key": row.routing_key,
            "body": _kept(row, ring),
            "created_at": now,
        }
        for row in rows
    ]
    if values:
        await tx.execute(insert(table), values)


async def add_hot(
    connection: HotConnection,
    schema: str,
    rows: Sequence[Pending],
    *,
    now: datetime,
    ring: KeyRing | None = None,
) -> list[Stored]:
    """The same on a bare connection, all rows in one statement.

    Returns them with their numbers, for the relay to publish at once when they are committed.
    """
    if not rows:
        return []
    numbers = await connection.fetch(
        f"""
        INSERT INTO {schema}.outbox (id, kind, name, routing_key, body, created_at)
        SELECT u.id, u.kind, u.name, u.routing_key, u.body, $6
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[])
            WITH ORDINALITY AS u (id, kind, name, routing_key, body, place)
        ORDER BY u.place
        RETURNING seq
        """,  # noqa: S608 - the schema is a constant of ours
        [row.id for row in rows],
        [row.kind for row in rows],
        [row.name for row in rows],
        [row.routing_key for row in rows],
        [_kept(row, ring) for row in rows],
        now,
    )
    return [Stored(row[0], pending) for row, pending in zip(numbers, rows, strict=True)]


def _kept(row: Pending, ring: KeyRing | None) -> bytes:
    return row.body if ring is None else ring.seal(row.body, _place(row.id))


def _place(row_id: UUID) -> Place:
    # A row is in no tenant's name: a command may be about several.
    return Place(NOBODY, "outbox", str(row_id))


class Relay:
    """Publishes one service's outbox.

    Whoever has committed rows hands them over with ``wake``, and they are published from memory and
    then deleted. What was left behind, by a crash or by a broker that was away, a sweep finds by
    its age. It claims rows by locking them, and deletes them in the same transaction, after the
    broker's confirms. Either way a crash in between publishes twice, never not at all. Claiming by
    ``seq > last`` would lose rows that commit late. Several relays may work on one outbox.

    A row that no key of the ring opens stays, is told of in the log and by readiness, and holds up
    no other.
    """

    def __init__(
        self,
        *,
        database: Database,
        broker: Broker,
        schema: str,
        clock: Clock,
        metrics: MessagingMetrics,
        ring: KeyRing | None = None,
    ) -> None:
        self._database = database
        self._broker = broker
        self._schema = schema
        self._clock = clock
        self._metrics = metrics
        self._ring = ring
        self._nudge = Nudge()
        self._fresh: list[Stored] = []
        # Rows that somebody has committed without handing them over: found by a sweep at once.
        self._unseen = False
        # Where a sweep goes on that has left rows behind it which no key opens, and how many. It
        # begins anew when it is through, so that it finds what is committed late.
        self._passed = 0
        self._unreadable = 0
        self._unreadable_found = 0
        # Rows up to here were in the log.
        self._lamented = 0

    def wake(self, rows: Sequence[Stored] | None = None) -> None:
        """Say that rows have been committed: these, or some that must be looked for."""
        if rows is None:
            self._unseen = True
        elif not rows:
            return
        elif len(self._fresh) < FRESH_LIMIT:  # beyond that the table remembers for us
            self._fresh.extend(rows)
        self._nudge.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        swept = float("-inf")
        while True:
            self._nudge.clear()
            try:
                if self._fresh:
                    await self.publish_fresh()
                now = self._clock.monotonic()
                # In turn with what is handed over, which under load never ends.
                if self._unseen or now - swept >= IDLE.total_seconds():
                    older_than = timedelta(0) if self._unseen else LEFT_BEHIND
                    self._unseen = False
                    if await self.step(older_than=older_than) == CLAIM_LIMIT or self._passed:
                        self._unseen = older_than == timedelta(0)
                        continue
                    swept = now
            except Transient as error:
                log.warning("outbox_not_published", schema=self._schema, reason=error.message)
                self._fresh.clear()
                await self._clock.sleep(AFTER_FAILURE)
                continue
            self._metrics.loop_succeeded.labels(f"{self._schema}_outbox").set(
                self._clock.now().timestamp()
            )
            if not self._fresh:
                await self._nudge.wait(IDLE)

    async def publish_fresh(self) -> int:
        """Publish what was handed over, at most ``CLAIM_LIMIT`` rows; return how many.

        Raises ``Transient``; the rows are still in the table then.
        """
        rows = self._fresh[:CLAIM_LIMIT]
        del self._fresh[:CLAIM_LIMIT]
        await self._broker.publish(outgoing([row.pending for row in rows]))
        # A deletion that a crash undoes is published once more, which everybody stands.
        async with self._database.hot(durable=False) as connection:
            await connection.execute(
                f"DELETE FROM {self._schema}.outbox WHERE seq = ANY ($1::bigint[])",  # noqa: S608
                [row.seq for row in rows],
            )
        self._metrics.published.inc(len(rows))
        return len(rows)

    async def step(self, *, older_than: timedelta = timedelta(0)) -> int:
        """Publish what has been in the table for so long, at most ``CLAIM_LIMIT`` rows.

        Returns how many. Raises ``Transient``, and then nothing has left the outbox. Behind as many
        rows that cannot be opened the next step goes on.
        """
        async with self._database.hot_tx(durable=False) as connection:
            rows = await connection.fetch(
                f"""
                SELECT seq, id, kind, name, routing_key, body FROM {self._schema}.outbox
                WHERE created_at <= $2 AND seq > $3
                ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED
                """,  # noqa: S608 - the schema is a constant of ours
                CLAIM_LIMIT,
                self._clock.now() - older_than,
                self._passed,
            )
            opened = [
                Stored(row[0], Pending(row[1], row[2], row[3], row[4], body))
                for row in rows
                if (body := self._opened(row[1], row[5])) is not None
            ]
            if opened:
                await self._broker.publish(outgoing([row.pending for row in opened]))
                await connection.execute(
                    f"DELETE FROM {self._schema}.outbox WHERE seq = ANY ($1::bigint[])",  # noqa: S608
                    [row.seq for row in opened],
                )
        self._pass([row[0] for row in rows], left=len(rows) - len(opened))
        self._metrics.published.inc(len(opened))
        return len(opened)

    def _opened(self, row_id: UUID, body: bytes) -> bytes | None:
        if self._ring is None or not is_sealed(body):
            return body
        try:
            return self._ring.open(body, _place(row_id))
        except Unsealable:
            return None

    def _pass(self, rows: Sequence[int], *, left: int) -> None:
        """Take down where the next step goes on, behind the rows of this one that it has left."""
        self._unreadable_found += left
        if left and rows[-1] > self._lamented:
            self._lamented = rows[-1]
            log.error(
                "outbox_not_readable",
                schema=self._schema,
                count=left,
                reason="Sealed under a key that is not in ENCRYPTION_KEYS: put that in again.",
            )
        if len(rows) == CLAIM_LIMIT and (left or self._passed):
            self._passed = rows[-1]
            return
        self._unreadable, self._unreadable_found, self._passed = self._unreadable_found, 0, 0

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
            lost = (
                f" {self._unreadable} are sealed under a key that is not in ENCRYPTION_KEYS: put"
                " that in again."
                if self._unreadable
                else ""
            )
            raise Transient(
                f"The oldest unpublished message has waited {age.total_seconds():.0f} s.{lost}"
            )


def outgoing(rows: Sequence[Pending]) -> list[Outgoing]:
    """The broker messages for some outbox rows.

    Commands go one by one. Events go one by one to subscribers, and once more, together with the
    others of their name, to our own services.
    """
    messages = []
    batches: dict[str, list[Pending]] = {}
    for row in rows:
        if row.kind != "event":
            messages.append(
                Outgoing(
                    exchange=COMMANDS,
                    routing_key=row.routing_key,
                    body=row.body,
                    message_id=str(row.id),
                    type=row.name,
                    content_type=JSON if row.kind == "command" else envelope.BATCH,
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
