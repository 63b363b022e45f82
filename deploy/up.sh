#!/bin/sh
# Run the five services as processes of this machine, in the foreground, over a database and a
# broker that are there already.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${DATABASE_URL:-}" ] || [ -z "${AMQP_URL:-}" ]; then
    cat >&2 <<'NEEDED'
'make up' runs over your own PostgreSQL and RabbitMQ, so it must be told where they are:

  export DATABASE_URL=postgresql://postgres:password@127.0.0.1:5432/postgres
  export AMQP_URL=amqp://guest:guest@127.0.0.1:5672/
  make up

To have them started for you use 'docker compose up'; to do without them, 'make run'.
NEEDED
    exit 2
fi

mkdir -p .waypost
if [ -z "${JWT_SECRET:-}" ]; then
    # Made once and kept, so that tokens outlive a restart.
    [ -s .waypost/jwt-secret ] ||
        (umask 077 && .venv/bin/python -c 'import secrets; print(secrets.token_urlsafe(48))' \
            >.waypost/jwt-secret)
    JWT_SECRET=$(cat .waypost/jwt-secret)
    export JWT_SECRET
fi
if [ -z "${ENCRYPTION_KEYS:-}" ]; then
    # Made once and kept: what it has sealed cannot be read without it.
    [ -s .waypost/encryption-keys ] ||
        (umask 077 && .venv/bin/python -c 'from shared.security.sealing import Key; print(Key.new("1").written())' \
            >.waypost/encryption-keys)
    ENCRYPTION_KEYS=$(cat .waypost/encryption-keys)
    export ENCRYPTION_KEYS
fi
export WAYPOST_MEDIA_STORE="${WAYPOST_MEDIA_STORE:-$PWD/.waypost/media}"
.venv/bin/python -m shared.db.migrate
# The shell becomes honcho and keeps its number, which 'make down' reads.
echo $$ >.waypost/up.pid
exec .venv/bin/honcho start
