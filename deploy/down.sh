#!/bin/sh
# Stop what deploy/up.sh has started, and return once it is gone.
set -eu
cd "$(dirname "$0")/.."

pid=$(cat .waypost/up.pid 2>/dev/null || true)
# The number may be another program's by now.
if [ -z "$pid" ] || ! ps -o args= -p "$pid" 2>/dev/null | grep -q 'honcho start'; then
    echo "Nothing to stop."
    exit 0
fi
kill -TERM "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
rm -f .waypost/up.pid
echo "Stopped."
