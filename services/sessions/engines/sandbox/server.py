"""The sandbox's server side: accounts, the wire, and the queue of stanzas for each account.

It plays WhatsApp, so it keeps what it has been given whatever becomes of the session process, and
several processes use it at once. Its clock is the database's.

Acknowledgements do not wait for the disk: one that a crash of PostgreSQL takes back is a stanza
that comes once more, and is recognised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from services.sessions.domain.lease import Lease
from services.sessions.store.fence import HELD, Fence, claimed
from shared.db.database import Database
from shared.errors import Fenced

# One look takes at most this many stanzas; the rest is taken by the next, at once.
LOOK_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Later:
    """A stanza for the sender, due some time after the message was taken."""

    delay: timedelta
    body: str


@dataclass(frozen=True, slots=True)
class Send:
    """One message on its way to the server.

    ``reaches`` are the numbers that get it if instances have linked them, and ``stanza`` is what
    they get; without one it is made from ``body``, the content.
    """

    lease: Lease
    tenant_id: UUID
    instance_id: UUID
    engine_message_id: str
    sender: str
    recipient: str
    body: str
    stanza: str | None
    reaches: tuple[str, ...]
    later: tuple[Later, ...]


@dataclass(frozen=True, slots=True)
class Due:
    """A stanza that waits to be acknowledged."""

    id: int
    instance_id: UUID
    due_at: datetime
    body: dict[str, object]


@dataclass(frozen=True, slots=True)
class Echo:
    """A stanza that the server makes for ``instance_id`` once stanza ``cause`` is acknowledged."""

    cause: int
    instance_id: UUID
    delay: timedelta
    body: str


class Server:
    """What the engine may ask of the server, a statement each."""

    def __init__(self, *, database: Database, fence: Fence) -> None:
        self._database = database
        self._fence = fence

    async def linked(self, instance_id: UUID) -> str | None:
        """The number that an instance is linked to."""
        async with self._database.hot() as connection:
            phone: str | None = await connection.fetchval(
                "SELECT phone FROM sessions.sandbox_accounts WHERE instance_id = $1", instance_id
            )
        return phone

    async def link(self, *, tenant_id: UUID, phone: str, instance_id: UUID) -> None:
        """Link an instance to a number; if another had it, the newer takes it over."""
        async with self._database.hot() as connection:
            await connection.execute(
                """
                INSERT INTO sessions.sandbox_accounts (tenant_id, phone, instance_id, linked_at)
                VALUES ($1, $2, $3, clock_timestamp())
                ON CONFLICT (tenant_id, phone) DO UPDATE
                SET instance_id = excluded.instance_id, linked_at = excluded.linked_at
                """,
                tenant_id,
                phone,
                instance_id,
            )

    async def unlink(self, instance_id: UUID, *, lease: Lease) -> bool:
        """Forget an instance's number and what waits for it, if the lease is valid."""
        async with self._fence.statement() as connection:
            held = await connection.fetchval(
                f"""
                WITH {HELD}, unlinked AS (
                    DELETE FROM sessions.sandbox_accounts
                    WHERE instance_id = $4 AND EXISTS (SELECT FROM held)
                ), dropped AS (
                    DELETE FROM sessions.sandbox_stanzas
                    WHERE instance_id = $4 AND EXISTS (SELECT FROM held)
                )
                SELECT EXISTS (SELECT FROM held)
                """,  # noqa: S608 - constants of ours
                *claimed([lease]),
                instance_id,
            )
        return bool(held)

    async def refuse(
        self, *, lease: Lease, instance_id: UUID, engine_message_id: str, times: int
    ) -> bool:
        """Whether a message is refused now, being refused ``times`` times in all.

        Counted by what is recorded, so it holds over a crash.
        """
        async with self._fence.statement() as connection:
            refused = await connection.fetchval(
                f"""
                WITH {HELD}
                INSERT INTO sessions.sandbox_refusals AS r (
                    instance_id, engine_message_id, refused, refused_at)
                SELECT $4, $5, 1, clock_timestamp() FROM held
                ON CONFLICT (instance_id, engine_message_id) DO UPDATE
                SET refused = r.refused + 1, refused_at = excluded.refused_at WHERE r.refused < $6
                RETURNING refused
                """,  # noqa: S608 - constants of ours
                *claimed([lease]),
                instance_id,
                engine_message_id,
                times,
            )
        return refused is not None

    async def take(self, sends: Sequence[Send]) -> Sequence[bool]:
        """Put messages on the wire; for each, whether its lease was valid.

        In one statement: the log, what goes to other instances, and what comes back later. A
        message whose id is known is acknowledged and otherwise ignored, as WhatsApp does.
        """
        later = [(number, item) for number, send in enumerate(sends) for item in send.later]
        async with self._fence.statement() as connection:
            rows = await connection.fetch(
                _TAKE,
                *claimed([send.lease for send in sends]),
                list(range(len(sends))),
                [send.lease.shard for send in sends],
                [send.lease.epoch for send in sends],
                [send.tenant_id for send in sends],
                [send.instance_id for send in sends],
                [send.engine_message_id for send in sends],
                [send.sender for send in sends],
                [send.recipient for send in sends],
                [send.body for send in sends],
                [send.stanza for send in sends],
                # Numbers are digits, and an array of arrays could not have some longer than others.
                [",".join(send.reaches) for send in sends],
                [number for number, _ in later],
                [item.delay for _, item in later],
                [item.body for _, item in later],
            )
        taken = {(row[0], row[1]) for row in rows}
        return [(send.instance_id, send.engine_message_id) in taken for send in sends]

    async def deliver(self, *, instance_id: UUID, body: str) -> None:
        """Put a stanza into an account's queue, due now."""
        async with self._database.hot() as connection:
            await connection.execute(
                """
                INSERT INTO sessions.sandbox_stanzas (instance_id, due_at, body)
                VALUES ($1, clock_timestamp(), $2::jsonb)
                """,
                instance_id,
                body,
            )

    async def tenant_of(self, instance_id: UUID) -> UUID | None:
        """Whose an instance is."""
        async with self._database.hot() as connection:
            tenant_id: UUID | None = await connection.fetchval(
                "SELECT tenant_id FROM gateway.instances WHERE id = $1", instance_id
            )
        return tenant_id

    async def tell(
        self, *, lease: Lease, tenant_id: UUID, phone: str, stanzas: Sequence[str]
    ) -> None:
        """Put stanzas into the queue of whichever instance has a number. Raises ``Fenced``."""
        async with self._fence.statement() as connection:
            held = await connection.fetchval(
                f"""
                WITH {HELD}, told AS (
                    INSERT INTO sessions.sandbox_stanzas (instance_id, due_at, body)
                    SELECT a.instance_id, clock_timestamp(), s.body::jsonb
                    FROM unnest($6::text[]) WITH ORDINALITY AS s (body, place)
                    CROSS JOIN held
                    JOIN sessions.sandbox_accounts a ON a.tenant_id = $4 AND a.phone = $5
                    ORDER BY s.place
                )
                SELECT count(*) FROM held
                """,  # noqa: S608 - constants of ours
                *claimed([lease]),
                tenant_id,
                phone,
                stanzas,
            )
        if not held:
            raise Fenced("Another process owns this connection now.")

    async def due(self, instances: Sequence[UUID]) -> Sequence[Due]:
        """What is due for any of these accounts, oldest first."""
        async with self._database.hot() as connection:
            rows = await connection.fetch(
                """
                SELECT id, instance_id, due_at, body FROM sessions.sandbox_stanzas
                WHERE instance_id = ANY($1::uuid[]) AND due_at <= clock_timestamp()
                ORDER BY due_at, id LIMIT $2
                """,
                instances,
                LOOK_LIMIT,
            )
        return [Due(row[0], row[1], row[2], orjson.loads(row[3])) for row in rows]

    async def acknowledge(self, stanzas: Sequence[int], echoes: Sequence[Echo]) -> None:
        """Take stanzas out of the queue and put in what follows from that."""
        async with self._database.hot(durable=False) as connection:
            await connection.execute(
                """
                WITH gone AS (
                    DELETE FROM sessions.sandbox_stanzas WHERE id = ANY($1::bigint[]) RETURNING id
                )
                INSERT INTO sessions.sandbox_stanzas (instance_id, due_at, body)
                SELECT e.instance_id, clock_timestamp() + e.delay, e.body::jsonb
                FROM unnest($2::bigint[], $3::uuid[], $4::interval[], $5::text[])
                    AS e (cause, instance_id, delay, body)
                JOIN gone ON gone.id = e.cause
                """,
                stanzas,
                [echo.cause for echo in echoes],
                [echo.instance_id for echo in echoes],
                [echo.delay for echo in echoes],
                [echo.body for echo in echoes],
            )

    async def postpone(self, stanzas: Sequence[int], *, delay: timedelta) -> None:
        """Offer stanzas again after a while."""
        async with self._database.hot(durable=False) as connection:
            await connection.execute(
                """
                UPDATE sessions.sandbox_stanzas SET due_at = clock_timestamp() + $2
                WHERE id = ANY($1::bigint[])
                """,
                stanzas,
                delay,
            )


_TAKE = f"""
    WITH {HELD}, sends AS (
        SELECT u.* FROM unnest(
            $4::int[], $5::smallint[], $6::bigint[], $7::uuid[], $8::uuid[], $9::text[],
            $10::text[], $11::text[], $12::text[], $13::text[], $14::text[]
        ) AS u (
            number, shard, epoch, tenant_id, instance_id, engine_message_id,
            sender, recipient, body, stanza, reaches
        )
        JOIN held ON held.id = u.shard AND held.epoch = u.epoch
    ), logged AS (
        INSERT INTO sessions.sandbox_wire AS w (
            instance_id, shard, epoch, engine_message_id, sender, recipient, body, at
        )
        SELECT instance_id, shard, epoch, engine_message_id, sender, recipient, body::jsonb,
            clock_timestamp()
        FROM sends ORDER BY number
        ON CONFLICT (instance_id, engine_message_id) DO UPDATE SET replays = w.replays + 1
        RETURNING w.instance_id, w.engine_message_id, w.replays
    ), new AS (
        SELECT s.* FROM sends s JOIN logged l USING (instance_id, engine_message_id)
        WHERE l.replays = 0
    ), reached AS (
        SELECT new.number, a.instance_id AS other
        FROM new
        JOIN sessions.sandbox_accounts a ON a.tenant_id = new.tenant_id
            AND a.phone = ANY(string_to_array(new.reaches, ','))
            AND a.instance_id <> new.instance_id
    ), forwarded AS (
        INSERT INTO sessions.sandbox_stanzas (instance_id, due_at, body)
        SELECT other, clock_timestamp(), jsonb_build_object('origin', instance_id) || COALESCE(
            stanza::jsonb,
            jsonb_build_object(
                'kind', 'message', 'id', engine_message_id, 'from', sender, 'content', body::jsonb))
        FROM reached JOIN new USING (number) ORDER BY number
    ), returned AS (
        INSERT INTO sessions.sandbox_stanzas (instance_id, due_at, body)
        SELECT new.instance_id, clock_timestamp() + l.delay, l.body::jsonb
        FROM unnest($15::int[], $16::interval[], $17::text[]) AS l (number, delay, body)
        JOIN new ON new.number = l.number
        WHERE NOT EXISTS (SELECT FROM reached WHERE reached.number = l.number)
        ORDER BY l.number
    )
    SELECT instance_id, engine_message_id FROM logged
"""  # noqa: S608 - constants of ours
