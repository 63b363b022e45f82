"""Who may do what to which table: the ownership of the architecture, enforced by PostgreSQL.

Each service's role owns nothing; it may read and write every table of its own schema, and beyond
that only what stands here, which is what its charter says. What is append only it may not even
write in full: there it adds and reads.
"""

SERVICES = ("gateway", "dispatcher", "sessions", "webhooks", "stats")


def role(service: str) -> str:
    """The database role of a service."""
    return f"waypost_{service}"


# (service, privilege, table of another service)
FOREIGN: tuple[tuple[str, str, str], ...] = (
    ("gateway", "SELECT, INSERT", "dispatcher.messages"),
    ("gateway", "SELECT", "dispatcher.message_words"),
    ("gateway", "SELECT", "dispatcher.erasures"),
    ("gateway", "SELECT", "dispatcher.transmissions"),
    ("gateway", "SELECT", "dispatcher.pacing"),
    ("gateway", "SELECT", "sessions.session_states"),
    ("gateway", "SELECT", "sessions.handovers"),
    ("gateway", "SELECT", "sessions.inbound_media"),
    ("gateway", "SELECT, INSERT", "sessions.callbacks"),
    ("gateway", "SELECT", "webhooks.deliveries"),
    ("gateway", "SELECT", "webhooks.attempts"),
    ("gateway", "SELECT", "webhooks.endpoint_health"),
    ("gateway", "SELECT", "stats.daily_counters"),
    ("gateway", "SELECT", "stats.hourly_counters"),
    ("gateway", "SELECT", "dispatcher.workers"),
    ("gateway", "SELECT", "sessions.workers"),
    ("gateway", "SELECT", "webhooks.workers"),
    ("gateway", "SELECT", "stats.workers"),
    ("dispatcher", "SELECT", "gateway.worker_orders"),
    ("sessions", "SELECT", "gateway.worker_orders"),
    ("webhooks", "SELECT", "gateway.worker_orders"),
    ("stats", "SELECT", "gateway.worker_orders"),
    ("dispatcher", "SELECT", "gateway.organizations"),
    ("dispatcher", "SELECT", "gateway.instances"),
    ("dispatcher", "SELECT", "sessions.session_states"),
    ("dispatcher", "SELECT", "sessions.handovers"),
    ("dispatcher", "SELECT", "sessions.shards"),
    ("sessions", "SELECT", "gateway.instances"),
    ("sessions", "SELECT", "gateway.media"),
    ("webhooks", "SELECT", "gateway.organizations"),
    ("webhooks", "SELECT", "gateway.webhooks"),
    ("webhooks", "SELECT", "gateway.instances"),
    ("stats", "SELECT", "gateway.organizations"),
)

# (service, columns, table of another service): to be read, and nothing else of it.
PARTS: tuple[tuple[str, str, str], ...] = (
    ("stats", "id, sent_at", "dispatcher.messages"),
    ("sessions", "id, retention_days", "gateway.organizations"),
)

# (service, table of its own): to be added to and read. What is too old goes by a function that
# the migrations own, which spares what is not.
APPEND_ONLY: tuple[tuple[str, str], ...] = (("gateway", "gateway.audit_logs"),)
# (service, function of its own)
FUNCTIONS: tuple[tuple[str, str], ...] = (
    ("gateway", "gateway.forget_audit_logs(timestamptz, integer)"),
)


def statements() -> list[str]:
    """What makes it so, on any database and however often it runs."""
    made = []
    for service in SERVICES:
        name = role(service)
        made += [
            *_create_role(name),
            f"REVOKE ALL ON SCHEMA {service} FROM PUBLIC",
        ]
        # What an earlier version granted, or somebody by hand, does not stay.
        for schema in SERVICES:
            made += [
                f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name}",
                f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM {name}",
                f"REVOKE ALL ON SCHEMA {schema} FROM {name}",
            ]
        made += [
            f"GRANT USAGE ON SCHEMA {service} TO {name}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {service} TO {name}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {service} TO {name}",
        ]
    # The whatsmeow library keeps credentials here, in tables that it makes and migrates by itself.
    made.append(f"GRANT USAGE, CREATE ON SCHEMA whatsmeow TO {role('sessions')}")
    made += [
        f"REVOKE UPDATE, DELETE ON {table} FROM {role(service)}" for service, table in APPEND_ONLY
    ]
    for service, function in FUNCTIONS:
        made += [
            f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
            f"GRANT EXECUTE ON FUNCTION {function} TO {role(service)}",
        ]
    for service, privilege, table in FOREIGN:
        made += [
            f"GRANT USAGE ON SCHEMA {table.split('.')[0]} TO {role(service)}",
            f"GRANT {privilege} ON {table} TO {role(service)}",
        ]
    for service, columns, table in PARTS:
        made += [
            f"GRANT USAGE ON SCHEMA {table.split('.')[0]} TO {role(service)}",
            f"GRANT SELECT ({columns}) ON {table} TO {role(service)}",
        ]
    return made


def _create_role(name: str) -> list[str]:
    # Roles belong to the whole cluster, so two databases being migrated at once may both try.
    # From PostgreSQL 16 on, whoever creates a role is a member of it who may not act as it.
    return [
        f"""
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN
                CREATE ROLE {name} NOLOGIN;
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
        """,
        f"""
        DO $$ DECLARE
            acts boolean := pg_has_role(CURRENT_USER, '{name}', 'MEMBER');
        BEGIN
            IF acts AND current_setting('server_version_num')::int >= 160000 THEN
                acts := pg_has_role(CURRENT_USER, '{name}', 'SET');
            END IF;
            IF NOT acts THEN
                GRANT {name} TO CURRENT_USER;
            END IF;
        EXCEPTION WHEN unique_violation THEN NULL;
        END $$
        """,
    ]
