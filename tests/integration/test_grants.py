"""Grants: each service's role is tried on every table, and can do what is declared and no more."""

import itertools
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from shared.db.tables import Base
from shared.db.tables.grants import (
    APPEND_ONLY,
    FOREIGN,
    FUNCTIONS,
    PARTS,
    SERVICES,
    role,
    statements,
)
from shared.ids import new_id

PRIVILEGES: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
TABLES: Final = tuple(sorted(Base.metadata.tables))

Allowed = set[tuple[str, str, str]]


def declared() -> Allowed:
    """Service, privilege and table: its own schema's tables, and what the rules add and take."""
    own = {(table.split(".")[0], privilege, table) for table in TABLES for privilege in PRIVILEGES}
    foreign = {
        (service, privilege, table)
        for service, privileges, table in FOREIGN
        for privilege in privileges.split(", ")
    }
    kept = {
        (service, privilege, table)
        for service, table in APPEND_ONLY
        for privilege in ("UPDATE", "DELETE")
    }
    parts = {(service, "SELECT", table) for service, _, table in PARTS}
    return (own - kept) | foreign | parts


def attempt(privilege: str, table: str) -> str:
    """A statement that needs this privilege and no other, and changes nothing."""
    column = next(iter(Base.metadata.tables[table].columns)).name
    return {
        "SELECT": f"SELECT FROM {table} LIMIT 0",
        "INSERT": f"INSERT INTO {table} DEFAULT VALUES",
        "UPDATE": f'UPDATE {table} SET "{column}" = DEFAULT WHERE false',
        "DELETE": f"DELETE FROM {table} WHERE false",
    }[privilege]


@pytest.fixture
async def connection(module_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(module_database_url)
    yield connection
    await connection.close()


async def may(connection: asyncpg.Connection, service: str, statement: str) -> bool:
    """Whether the service's role may run the statement, of which nothing is kept."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"SET LOCAL ROLE {role(service)}")
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    except asyncpg.NotNullViolationError:
        return True  # It got as far as the row, which is none.
    finally:
        await transaction.rollback()
    return True


async def allowed(connection: asyncpg.Connection) -> Allowed:
    """What every role can do to every table, found out by trying."""
    tried = itertools.product(SERVICES, PRIVILEGES, TABLES)
    return {
        (service, privilege, table)
        for service, privilege, table in tried
        if await may(connection, service, attempt(privilege, table))
    }


async def test_each_role_can_do_what_is_declared_and_no_more(
    connection: asyncpg.Connection,
) -> None:
    can, should = await allowed(connection), declared()
    assert can - should == set(), "allowed without being declared"
    assert should - can == set(), "declared and not allowed"


def test_no_service_writes_what_another_owns_but_the_gateway_what_it_accepts() -> None:
    assert [rule for rule in FOREIGN if rule[1] != "SELECT"] == [
        ("gateway", "SELECT, INSERT", "dispatcher.messages"),
        ("gateway", "SELECT, INSERT", "sessions.callbacks"),
    ]


def test_no_rule_is_about_a_table_that_does_not_exist_or_a_services_own() -> None:
    for service, _, table in FOREIGN:
        assert table in TABLES
        assert service in SERVICES
        assert table.split(".")[0] != service


async def test_of_a_table_in_part_nothing_else_can_be_read(
    connection: asyncpg.Connection,
) -> None:
    for service, columns, table in PARTS:
        assert await may(connection, service, f"SELECT {columns} FROM {table}")
        for column in Base.metadata.tables[table].columns:
            readable = await may(connection, service, f'SELECT "{column.name}" FROM {table}')
            assert readable == (column.name in columns.split(", ")), column.name


async def test_no_role_can_log_in_or_is_more_than_a_role(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY($1)"
        " AND NOT (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls)",
        [role(service) for service in SERVICES],
    )
    assert {row[0] for row in rows} == {role(service) for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
async def test_no_role_can_change_the_shape_of_anything(
    connection: asyncpg.Connection, service: str
) -> None:
    (table,) = itertools.islice((one for one in TABLES if one.startswith(f"{service}.")), 1)
    for statement in (
        f"CREATE TABLE {service}.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        f"ALTER TABLE {table} ADD COLUMN mine int",
        f"TRUNCATE {table}",
        f"DROP TABLE {table}",
        "SELECT * FROM alembic_version",
    ):
        assert not await may(connection, service, statement), statement


@pytest.mark.parametrize("service", SERVICES)
async def test_no_role_can_act_as_another(connection: asyncpg.Connection, service: str) -> None:
    for other in set(SERVICES) - {service}:
        query = "SELECT pg_has_role($1, $2, 'MEMBER')"
        assert not await connection.fetchval(query, role(service), role(other))


async def test_the_gateway_can_insert_a_message_and_number_an_event(
    connection: asyncpg.Connection,
) -> None:
    # What is numbered by a sequence needs more than the table's own rights.
    insert = (
        "INSERT INTO dispatcher.messages (id, tenant_id, instance_id, shard, direction, chat,"
        " sender, recipient, type, content, status, priority, on_unknown, due_at, expires_at,"
        f" created_at) VALUES ('{new_id()}', '{new_id()}', '{new_id()}', 7, 'outbound', '', '', '',"
        " 'text', '{}', 'queued', 1, 'fail', now(), now(), now())"
    )
    assert await may(connection, "gateway", insert)
    assert await may(connection, "gateway", "SELECT nextval('gateway.event_sequence')")
    assert not await may(connection, "stats", "SELECT nextval('gateway.event_sequence')")


async def test_each_function_is_for_the_service_that_it_was_made_for_alone(
    connection: asyncpg.Connection,
) -> None:
    for owner, function in FUNCTIONS:
        for service in SERVICES:
            query = "SELECT has_function_privilege($1, $2, 'EXECUTE')"
            may_call = await connection.fetchval(query, role(service), function)
            assert may_call == (service == owner)


async def test_what_is_not_declared_any_more_is_taken_back_by_the_next_migration(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(f"GRANT USAGE ON SCHEMA gateway TO {role('stats')}")
    await connection.execute(f"GRANT ALL ON gateway.users TO {role('stats')}")
    await connection.execute(f"GRANT ALL ON SEQUENCE gateway.event_sequence TO {role('stats')}")
    assert await may(connection, "stats", "SELECT FROM gateway.users")
    async with connection.transaction():
        for statement in statements():
            await connection.execute(statement)
    assert not await may(connection, "stats", "SELECT FROM gateway.users")
    assert not await may(connection, "stats", "SELECT nextval('gateway.event_sequence')")
    assert await allowed(connection) == declared()
