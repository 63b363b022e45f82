"""One message's whole journey, against a running Waypost, step by step.

usage: python docs/examples/demo.py [http://127.0.0.1:8080]

Registers, connects a sandbox instance, sends a text to a contact that answers, receives the
webhooks and verifies their signatures with three independent programs, and reads the counters.
"""

import asyncio
import base64
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import standardwebhooks
import svix.webhooks
from aiohttp import web

# A contact of the sandbox that is delivered, reads, and answers at once with the same text.
ECHO = "+12025550108"
EXPECTED = ["message.sent", "message.delivered", "message.read", "message.received"]
DEADLINE = 30.0


@dataclass(frozen=True)
class Hook:
    """A webhook as it came in: the raw bytes are what was signed."""

    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


class Receiver:
    """A customer's server: keeps what it gets and answers 200."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []

    async def receive(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.hooks.append(Hook(headers, await request.read()))
        return web.Response()

    def of(self, event: str) -> list[Hook]:
        """The deliveries of one event."""
        return [hook for hook in self.hooks if hook.payload["event"] == event]


class Waypost:
    """The API, as a customer sees it."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self.headers: dict[str, str] = {}

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One request; the ``data`` of its answer, or the end of the demo."""
        async with self._http.request(
            method, f"{self._url}/api{path}", json=body, headers=self.headers
        ) as response:
            answer = await response.json()
        if not answer["success"]:
            raise SystemExit(f"{method} {path} answered {response.status}: {answer['error']}")
        return answer["data"]


async def until(what: str, check: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again until there is an answer."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        if found := await check():
            return found
        await asyncio.sleep(0.05)
    raise SystemExit(f"Waited {DEADLINE:.0f} s in vain for {what}.")


def say(step: str, detail: str = "") -> None:
    """Print one step."""
    print(f"  {step:<34}{detail}")


async def connect(waypost: Waypost) -> str:
    """Register, make an instance and pair it; returns its id."""
    email = f"demo-{secrets.token_hex(6)}@example.com"
    account = await waypost.call(
        "POST",
        "/auth/register",
        {"email": email, "password": "an example passphrase", "name": "Demo"},
    )
    waypost.headers = {"Authorization": f"Bearer {account['token']}"}
    say("registered", email)
    instance = await waypost.call("POST", "/instances", {"name": "Demo", "engine": "sandbox"})
    id_ = str(instance["id"])
    say("instance made", id_)
    await waypost.call("POST", f"/instances/{id_}/connect")

    async def status() -> str | None:
        found = await waypost.call("GET", f"/instances/{id_}/status")
        return str(found["phoneNumber"]) if found["status"] == "ready" else None

    phone = await until("the instance to be ready", status)
    say("paired and ready", phone)
    return id_


async def verify(hook: Hook, secret: str) -> list[str]:
    """Check every signature of a delivery with three programs that know nothing of Waypost."""
    standardwebhooks.Webhook(secret).verify(hook.body, hook.headers)
    svix.webhooks.Webhook(secret).verify(hook.body, hook.headers)
    by = ["standardwebhooks", "svix"]
    node = shutil.which("node")
    if node is not None:
        given = {
            "secret": secret,
            "headers": hook.headers,
            "body": base64.b64encode(hook.body).decode(),
        }
        script = Path(__file__).with_name("verify-webhook.mjs")
        process = await asyncio.create_subprocess_exec(
            node, os.fspath(script), stdin=asyncio.subprocess.PIPE
        )
        await process.communicate(json.dumps(given).encode())
        if process.returncode != 0:
            raise SystemExit("Node's crypto does not agree with the signatures.")
        by.append("node crypto")
    return by


async def journey(waypost: Waypost, receiver: Receiver, hook_url: str) -> None:
    """Play it."""
    instance = await connect(waypost)
    hook = await waypost.call(
        "POST", f"/instances/{instance}/webhook", {"url": hook_url, "events": ["message.*"]}
    )
    say("webhook set", hook_url)
    tested = await waypost.call("POST", f"/instances/{instance}/webhook/test")
    say("webhook tested", f"{tested['statusCode']} in {tested['responseTime']} ms")
    key = await waypost.call("POST", f"/instances/{instance}/keys", {"name": "demo"})
    say("instance key made", f"{key['key'][:8]}…")

    waypost.headers = {"X-API-Key": key["key"]}
    started = time.perf_counter()
    sent = await waypost.call("POST", "/messages/text", {"to": ECHO, "message": "Hello, Waypost!"})
    say("message accepted", f"{sent['id']} in {(time.perf_counter() - started) * 1000:.0f} ms")

    async def all_here() -> bool:
        return all(receiver.of(event) for event in EXPECTED)

    await until("the webhooks " + ", ".join(EXPECTED), all_here)
    for event in EXPECTED:
        [delivery] = receiver.of(event)
        by = await verify(delivery, hook["secret"])
        say(f"webhook {event}", "signature verified by " + ", ".join(by))
    reply = receiver.of("message.received")[0].payload["data"]
    say("reply received", f"{reply['from']} wrote “{reply['content']['text']}”")

    timeline = await waypost.call("GET", f"/messages/{sent['id']}/timeline")
    say("timeline", " → ".join(dict.fromkeys(str(hop["hop"]) for hop in timeline)))

    async def counted() -> Any:
        stats = await waypost.call("GET", "/stats")
        return stats if stats["today"] == {"sent": 1, "received": 1} else None

    stats = await until("the counters", counted)
    say("counted today", f"{stats['today']['sent']} sent, {stats['today']['received']} received")
    events = await waypost.call("GET", f"/events?instanceId={instance}&limit=100")
    say("event log", f"{len(events)} events")


async def main(url: str) -> None:
    """Run the receiver beside the journey."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hooks", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(f"\n  One message's journey through {url}\n")
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            await journey(Waypost(http, url), receiver, f"http://127.0.0.1:{port}/hooks")
    except aiohttp.ClientConnectorError:
        raise SystemExit(f"Nobody answers at {url}. Start Waypost with: make run") from None
    finally:
        await runner.cleanup()
    print("\n  The journey is complete.\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"))
