"""WhatsApp to play with, and no phone: ``make whatsapp``.

usage: python -m tests.whatsapp.by_hand [--port N] [--once]

Starts the local WhatsApp server, a Waypost in one process whose linked devices come to that server,
and Ada, a contact who reads and answers. Links an instance to a phone, and shows how to write to
Ada and every webhook that comes. Nothing leaves this machine, and nothing is kept. With ``--once``
it says everything to Ada that can be said, has her say it all, and ends.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web
from typing_extensions import override

from tests.support import whatsapp_needs
from tests.support.customer import Customer, Sink
from tests.support.eventually import eventually
from tests.support.node import Missing
from tests.support.system import IMPATIENT, Process, System, free_port
from tests.support.whatsapp import WhatsApp, linked, waypost_environment
from tests.support.whatsapp_ada import Ada
from tests.support.whatsapp_files import IMAGE, SAMPLES

ADA: Final = "12025550171"
OURS: Final = "12025550180"
OTHER: Final = "12025550181"
PATIENCE: Final = timedelta(seconds=30)


def say(who: str, what: str) -> None:
    """One line of what happens."""
    sys.stdout.write(f"  {who:<10} {what}\n")
    sys.stdout.flush()


# What is said by itself: the path, and the body without its recipient.
SAID: Final[Sequence[tuple[str, dict[str, Any]]]] = (
    ("text", {"message": "Good morning, Ada"}),
    ("location", {"latitude": 52.52, "longitude": 13.405, "name": "Berlin"}),
    ("contact", {"name": "Ben", "phones": ["+12025550172"]}),
    ("poll", {"question": "Lunch?", "options": ["Yes", "No"]}),
)
# What Ada does at a word, and the webhook that tells of it.
ANSWERED: Final[Sequence[tuple[str, str, dict[str, str]]]] = (
    ("echo Hello", "message.received", {"messageType": "text"}),
    *((sample.kind, "message.received", {"messageType": sample.kind}) for sample in SAMPLES),
    ("location", "message.received", {"messageType": "location"}),
    ("contact", "message.received", {"messageType": "contact"}),
    ("poll", "message.received", {"messageType": "poll"}),
    ("react", "message.reaction", {}),
    ("edit", "message.edited", {}),
    ("revoke", "message.revoked", {}),
    ("group", "message.received", {"messageType": "text"}),
)


class Hooks(Sink):
    """The customer's server, which shows what it gets."""

    @override
    async def receive(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        answer = await super().receive(request)
        _, payload = self.got[-1]
        data = payload["data"]
        told = data.get("content") or data.get("emoji") or data.get("status") or ""
        shown = json.dumps(told, ensure_ascii=False) if told else ""
        say("webhook", f"{payload['event']} {data.get('messageType', '')} {shown}".rstrip())
        return answer

    def all(self, event: str) -> list[dict[str, Any]]:
        """The data of all that came under a name."""
        return [payload["data"] for _, payload in self.got if payload["event"] == event]

    def count(self, event: str, facts: Mapping[str, str]) -> int:
        """How many of them have these facts."""
        return sum(facts.items() <= _plain(data).items() for data in self.all(event))

    async def come(self, event: str, *, more_than: int = 0, **facts: str) -> None:
        """Return once one more has come."""

        async def came() -> bool:
            return self.count(event, facts) > more_than

        await eventually(came, within=PATIENCE)


def _plain(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in data.items() if isinstance(value, str)}


@asynccontextmanager
async def waypost(folder: Path, port: int, whatsapp: WhatsApp) -> AsyncIterator[System]:
    """A Waypost in one process whose linked devices come to the server."""
    environment = {
        **IMPATIENT,
        **waypost_environment(whatsapp),
        "WAYPOST_DATA": str(folder / "data"),
        "WAYPOST_PORT": str(port),
        "WAYPOST_LOG_STYLE": "json",
        "WAYPOST_LOG_LEVEL": "INFO",
    }
    process = Process("waypost", "services", environment, folder / "waypost.log")
    system = System(f"http://127.0.0.1:{port}", "", {"waypost": process}, None)
    await process.start()
    try:
        await system.ready()
        yield system
    finally:
        await process.stop()


def invitation(url: str, key: str, folder: Path) -> str:
    """How to write to Ada."""
    send = f"curl -sS {url}/api/messages"
    sign = f"-H 'x-api-key: {key}'"
    body = "-H 'content-type: application/json' -d"
    return f"""
  The instance +{OURS} is linked. Ada is +{ADA}. Write to her from another shell:

    {send}/text {sign} {body} '{{"to": "+{ADA}", "message": "echo Hello"}}'
    {send}/text {sign} {body} '{{"to": "+{ADA}", "message": "poll"}}'
    {send}/image {sign} -F to=+{ADA} -F caption=Look -F image=@{folder / IMAGE.name}

  She answers to: echo …, image, video, audio, voice, document, sticker, location, contact, poll,
  react, edit, revoke, group. What she does comes as webhooks, which are shown here:

"""


async def converse(customer: Customer, hooks: Hooks) -> None:
    """Everything that can be said, to Ada and by her; fails if anything does not arrive."""
    for path, body in SAID:
        await told(customer, hooks, path, {"to": f"+{ADA}", **body})
    for sample in SAMPLES:
        form = aiohttp.FormData()
        form.add_field("to", f"+{ADA}")
        form.add_field(
            sample.kind, sample.data, filename=sample.name, content_type=sample.mime_type
        )
        say("API", f"POST /api/messages/{sample.kind} ({sample.name})")
        answer = await customer.call("POST", f"/api/messages/{sample.kind}", data=form)
        assert answer.status == 202, answer.body
        await hooks.come("message.read", messageId=answer.data["id"])
    message = await told(customer, hooks, "text", {"to": f"+{ADA}", "message": "Se you"})
    for method, change in (("PUT", {"message": "See you"}), ("DELETE", None)):
        say("API", f"{method} /api/messages/{{id}} {json.dumps(change) if change else ''}".rstrip())
        answer = await customer.call(method, f"/api/messages/{message}", json=change)
        assert answer.status == 202, answer.body
        await hooks.come("message.sent", messageId=answer.data["id"])
    for word, event, facts in ANSWERED:
        before = hooks.count(event, facts)
        await told(customer, hooks, "text", {"to": f"+{ADA}", "message": word})
        await hooks.come(event, more_than=before, **facts)
    heard = next(data for data in hooks.all("message.received") if data["messageType"] == "text")
    body = {"messageId": heard["messageId"], "emoji": "👍"}
    say("API", f"POST /api/messages/reaction {json.dumps(body, ensure_ascii=False)}")
    answer = await customer.post("/api/messages/reaction", body)
    assert answer.status == 202, answer.body
    await hooks.come("message.sent", messageId=answer.data["id"])


async def told(customer: Customer, hooks: Hooks, path: str, body: dict[str, Any]) -> str:
    """Say something by the API, and wait until Ada has read it; returns its id."""
    say("API", f"POST /api/messages/{path} {json.dumps(body)}")
    answer = await customer.post(f"/api/messages/{path}", body)
    assert answer.status == 202, answer.body
    message = str(answer.data["id"])
    await hooks.come("message.read", messageId=message)
    return message


async def play(port: int, *, once: bool, folder: Path) -> None:
    """Until a signal, or once."""
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    say("starting", "a local WhatsApp, Waypost, and Ada, who is on WhatsApp")
    async with (
        WhatsApp.running(folder, detached=True) as whatsapp,
        waypost(folder, port, whatsapp) as system,
        whatsapp.contact("ada", ADA) as contact,
        Hooks.listening() as hooks,
        Customer.of(system.url) as customer,
    ):
        say("Waypost", f"at {system.url}, documentation at {system.url}/docs")
        instance = await linked(customer, whatsapp, OURS)
        say("paired", f"+{OURS} by QR code")
        await customer.webhook(instance["id"], hooks.url)
        sys.stdout.write(invitation(system.url, instance["key"], folder))
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            living = group.create_task(
                Ada(contact, folder, told=lambda what: say("Ada", what)).live(), name="ada"
            )
            if once:
                await linked(customer, whatsapp, OTHER, by="code")
                say("paired", f"+{OTHER} by pairing code")
                await converse(customer.with_key(instance["key"]), hooks)
            else:
                await stop.wait()
            living.cancel()
        say("stopping", "nothing of it is kept")


def main() -> None:
    """Run it from a shell."""
    parser = argparse.ArgumentParser(prog="python -m tests.whatsapp.by_hand")
    parser.add_argument("--port", type=int, default=0, help="of Waypost's API; else a free one")
    parser.add_argument("--once", action="store_true", help="talk to Ada, and end")
    given: Any = parser.parse_args()
    try:
        whatsapp_needs.install()
    except Missing as missing:
        sys.exit(str(missing))
    with tempfile.TemporaryDirectory(prefix="waypost-whatsapp-") as folder:
        asyncio.run(play(given.port or free_port(), once=given.once, folder=Path(folder)))


if __name__ == "__main__":
    main()
