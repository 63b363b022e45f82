#!/bin/sh
# Sends the first message: five requests with curl, and then one more to see what became of it.
# usage: first-message.sh [http://127.0.0.1:8080]
set -eu
api="${1:-http://127.0.0.1:8080}/api"
json='content-type: application/json'

# A field of the last answer, by a path such as data.id; says what went wrong if there is none.
field() {
  python3 -c '
import json, sys
answer = json.loads(sys.stdin.read() or sys.exit("no answer; start Waypost with: make run"))
if not answer["success"]:
    sys.exit(answer["error"]["message"])
for name in sys.argv[1].split("."):
    answer = answer[name]
print(answer)' "$1"
}

echo "1. An account"
email="you-$(date +%s)-$$@example.com"
token=$(curl -sS "$api/auth/register" -H "$json" \
  -d "{\"email\": \"$email\", \"password\": \"an example passphrase\", \"name\": \"You\"}" |
  field data.token)
auth="authorization: Bearer $token"

echo "2. An instance: a WhatsApp connection, here to the sandbox"
instance=$(curl -sS "$api/instances" -H "$auth" -H "$json" \
  -d '{"name": "My first", "engine": "sandbox"}' | field data.id)

echo "3. Connect it; the sandbox scans its own QR code after a second"
curl -sS -X POST "$api/instances/$instance/connect" -H "$auth" | field data.status >/dev/null
status=connecting
tries=0
while [ "$status" != ready ]; do
  tries=$((tries + 1))
  [ "$tries" -le 30 ] || { echo "still $status after 30 seconds" >&2; exit 1; }
  sleep 1
  status=$(curl -sS "$api/instances/$instance/status" -H "$auth" | field data.status)
done

echo "4. A key that may send on it"
key=$(curl -sS "$api/instances/$instance/keys" -H "$auth" -H "$json" -d '{"name": "mine"}' |
  field data.key)

echo "5. The message"
message=$(curl -sS "$api/messages/text" -H "x-api-key: $key" -H "$json" \
  -d '{"to": "+12025550199", "message": "Hello from Waypost"}' | field data.id)

sleep 2
echo "   is now $(curl -sS "$api/messages/$message" -H "x-api-key: $key" | field data.status)"
