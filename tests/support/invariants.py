"""The guarantees, checked over the database and the sandbox's wire: what was done, not said.

usage: python -m tests.support.invariants postgresql://…

Call it when everything is quiet. Each check answers the violations that it found; none means that
the guarantee held.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

import asyncpg

from shared.ids import id_of
from tests.support import keys

Check = Callable[[asyncpg.Connection], Awaitable[list[str]]]


async def i1_every_message_has_one_outcome(sql: asyncpg.Connection) -> list[str]:
    """Every 202 ends in exactly one outcome."""
    rows = await sql.fetch(
        "SELECT id, status FROM dispatcher.messages WHERE direction = 'outbound'"
        " AND status NOT IN ('sent', 'delivered', 'read', 'failed', 'canceled')"
    )
    found = [f"message {row[0]} is still {row[1]}" for row in rows]
    rows = await sql.fetch(
        "SELECT id FROM dispatcher.messages WHERE direction = 'outbound'"
        " AND sent_at IS NOT NULL AND failed_at IS NOT NULL"
    )
    return found + [f"message {row[0]} was both sent and failed" for row in rows]


async def i2_no_event_is_lost(sql: asyncpg.Connection) -> list[str]:
    """Every committed fact has its event in the log and in the statistics' inbox."""
    found = []
    expected: dict[UUID, str] = {}
    for name, condition in {
        "message.sent": "sent_at IS NOT NULL",
        "message.delivered": "delivered_at IS NOT NULL",
        "message.read": "read_at IS NOT NULL",
        "message.failed": "status = 'failed'",
    }.items():
        rows = await sql.fetch(
            f"SELECT id FROM dispatcher.messages WHERE direction = 'outbound' AND {condition}"
        )
        expected |= {id_of(name, row[0]): f"{name} of {row[0]}" for row in rows}
    logged = await _ids(sql, "SELECT id FROM gateway.events")
    counted = await _ids(sql, "SELECT event_id FROM stats.inbox")
    for id_, what in expected.items():
        if id_ not in logged:
            found.append(f"{what} is not in the event log")
        if id_ not in counted:
            found.append(f"{what} was not counted")
    received = await sql.fetch(
        "SELECT id, tenant_id, body FROM gateway.events WHERE type = 'message.received'"
    )
    inbound = await _ids(sql, "SELECT id FROM dispatcher.messages WHERE direction = 'inbound'")
    found += [
        f"received event {row['id']} has no message"
        for row in received
        if UUID(keys.logged(row)["data"]["messageId"]) not in inbound
    ]
    for schema in ("gateway", "dispatcher", "sessions", "webhooks"):
        waiting = await sql.fetchval(f"SELECT count(*) FROM {schema}.outbox")
        if waiting:
            found.append(f"{waiting} rows are still in {schema}'s outbox")
    undelivered = await sql.fetch(
        "SELECT id FROM sessions.sandbox_stanzas WHERE due_at < now() - interval '30 seconds'"
    )
    return found + [f"stanza {row[0]} was never acknowledged" for row in undelivered]


async def i3_a_message_is_put_on_the_wire_once(sql: asyncpg.Connection) -> list[str]:
    """One accepted message is put on the wire once, unless its sender allowed a repeat."""
    rows = await sql.fetch(
        "SELECT m.id, w.replays + 1 FROM sessions.sandbox_wire w"
        " JOIN dispatcher.messages m ON m.instance_id = w.instance_id"
        " AND m.engine_message_id = w.engine_message_id AND m.direction = 'outbound'"
        " WHERE m.on_unknown <> 'resend' AND w.replays > 0"
    )
    found = [f"message {row[0]} was put on the wire {row[1]} times" for row in rows]
    rows = await sql.fetch(
        "SELECT m.id FROM dispatcher.messages m JOIN gateway.instances i ON i.id = m.instance_id"
        " WHERE i.engine = 'sandbox' AND m.direction = 'outbound'"
        " AND m.sent_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM sessions.sandbox_wire w"
        " WHERE w.instance_id = m.instance_id AND w.engine_message_id = m.engine_message_id)"
    )
    return found + [f"message {row[0]} says sent and never was on the wire" for row in rows]


async def i4_every_matching_endpoint_gets_every_event(sql: asyncpg.Connection) -> list[str]:
    """Each event reaches each endpoint that asked for it, or its delivery has ended."""
    rows = await sql.fetch(
        "SELECT e.id, e.type, w.id FROM gateway.events e JOIN gateway.webhooks w"
        " ON w.tenant_id = e.tenant_id AND w.active AND e.time > w.created_at"
        " AND (w.instance_id IS NULL OR w.instance_id = e.instance_id)"
        " AND (e.type = ANY (w.events) OR '*' = ANY (w.events)"
        "      OR split_part(e.type, '.', 1) || '.*' = ANY (w.events))"
        " LEFT JOIN webhooks.endpoint_health h ON h.endpoint_id = w.id"
        " WHERE e.type <> 'test' AND (h.disabled_at IS NULL OR e.time < h.disabled_at)"
        " AND NOT EXISTS (SELECT 1 FROM webhooks.deliveries d"
        " WHERE d.endpoint_id = w.id AND d.event_id = e.id)"
    )
    found = [f"{row[1]} {row[0]} was never addressed to endpoint {row[2]}" for row in rows]
    rows = await sql.fetch(
        "SELECT id, state FROM webhooks.deliveries"
        " WHERE state NOT IN ('delivered', 'exhausted', 'disabled')"
    )
    return found + [f"delivery {row[0]} is still {row[1]}" for row in rows]


async def i5_counters_equal_distinct_events(sql: asyncpg.Connection) -> list[str]:
    """Counters equal the number of distinct events."""
    rows = await sql.fetch(
        "WITH counted AS (SELECT instance_id, metric, sum(count) AS n FROM stats.daily_counters"
        " GROUP BY 1, 2), logged AS (SELECT instance_id, split_part(type, '.', 2) AS metric,"
        " count(DISTINCT id) AS n FROM gateway.events WHERE type IN ('message.sent',"
        " 'message.delivered', 'message.read', 'message.failed', 'message.received')"
        " GROUP BY 1, 2)"
        " SELECT coalesce(c.instance_id, l.instance_id), coalesce(c.metric, l.metric), c.n, l.n"
        " FROM counted c FULL JOIN logged l USING (instance_id, metric)"
        " WHERE c.n IS DISTINCT FROM l.n"
        " AND coalesce(c.metric, l.metric) IN ('sent', 'delivered', 'read', 'failed', 'received')"
    )
    return [f"{row[1]} of {row[0]}: {row[2]} counted, {row[3]} happened" for row in rows]


async def i6_a_chat_keeps_its_order(sql: asyncpg.Connection) -> list[str]:
    """Within a chat, what is on the wire is in the order of acceptance, for one priority."""
    rows = await sql.fetch(
        "SELECT id, sequence, before FROM (SELECT m.id, m.sequence, max(m.sequence) OVER ("
        " PARTITION BY m.instance_id, m.chat, m.priority ORDER BY w.id"
        " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before"
        " FROM (SELECT instance_id, engine_message_id, min(id) AS id FROM sessions.sandbox_wire"
        " GROUP BY 1, 2) w JOIN dispatcher.messages m ON m.instance_id = w.instance_id"
        " AND m.engine_message_id = w.engine_message_id AND m.direction = 'outbound') o"
        " WHERE sequence < before"
    )
    return [f"message {row[0]} ({row[1]}) was overtaken by {row[2]}" for row in rows]


async def i7_a_connection_has_one_owner(sql: asyncpg.Connection) -> list[str]:
    """The epochs on the wire never go back for a shard."""
    rows = await sql.fetch(
        "SELECT id, shard, epoch, before FROM (SELECT id, shard, epoch, max(epoch) OVER ("
        " PARTITION BY shard ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        " AS before FROM sessions.sandbox_wire) w WHERE epoch < before"
    )
    return [f"wire {row[0]}: shard {row[1]} went from epoch {row[3]} to {row[2]}" for row in rows]


async def i8_tenants_are_apart(sql: asyncpg.Connection) -> list[str]:
    """Nothing of one tenant's instance stands under another tenant."""
    found = []
    for table in ("dispatcher.messages", "gateway.events", "webhooks.deliveries"):
        count = await sql.fetchval(
            f"SELECT count(*) FROM {table} t JOIN gateway.instances i ON i.id = t.instance_id"
            " WHERE t.tenant_id <> i.tenant_id"
        )
        if count:
            found.append(f"{count} rows of {table} belong to another tenant's instance")
    return found


CHECKS: tuple[Check, ...] = (
    i1_every_message_has_one_outcome,
    i2_no_event_is_lost,
    i3_a_message_is_put_on_the_wire_once,
    i4_every_matching_endpoint_gets_every_event,
    i5_counters_equal_distinct_events,
    i6_a_chat_keeps_its_order,
    i7_a_connection_has_one_owner,
    i8_tenants_are_apart,
)


async def violations(
    database_url: str, *, checks: Iterable[Check] = CHECKS
) -> dict[str, list[str]]:
    """What each check found, by name; empty lists where the guarantee held."""
    sql = await asyncpg.connect(database_url)
    try:
        return {check.__name__: await check(sql) for check in checks}
    finally:
        await sql.close()


async def _ids(sql: asyncpg.Connection, query: str) -> set[UUID]:
    return {row[0] for row in await sql.fetch(query)}


async def main(database_url: str) -> int:
    """Print a line for each guarantee; the number of those that did not hold."""
    found = await violations(database_url)
    for name, broken in found.items():
        number, _, sentence = name.partition("_")
        verdict = "broken" if broken else "holds "
        lines = [f"{number.upper()}  {verdict}  {sentence.replace('_', ' ')}"]
        lines += [f"      {line}" for line in broken[:20]]
        sys.stdout.write("\n".join(lines) + "\n")
    return sum(1 for broken in found.values() if broken)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1])))
