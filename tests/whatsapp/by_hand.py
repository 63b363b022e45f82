"""WhatsApp to play with, and no phone: ``make whatsapp``.

usage: python -m tests.whatsapp.by_hand [--port N] [--once]

Starts the local WhatsApp server, a Waypost in one process whose linked devices come to that server,
and Ada, a contact who reads and answers. Links an instance to a phone, and shows how to write to
Ada and every webhook that comes. Nothing leaves this machine, and nothing is kept. With ``--once``
it says a few words to Ada by itself, waits for the answers, and ends.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from typing_extensions import override

from tests.support import whatsapp_needs
from tests.support.customer import Customer, Sink
from tests.support.eventually import eventually
from tests.support.system import IMPATIENT, Process, System, free_port
from tests.support.whatsapp import WhatsApp, linked, waypost_environment
from tests.support.whatsapp_contact import Contact, Heard
from tests.support.whatsapp_files import IMAGE, SAMPLES

ADA: Final = "12025550171"
OURS: Final = "12025550180"
FOREVER: Final = 365.0 * 24 * 3600
PATIENCE: Final = timedelta(seconds=30)
HELP: Final = (
    "I am Ada. I answer to: echo …, image, video, audio, voice, document, sticker, location, "
    "contact, poll, react, edit, revoke, group."
)


def say(who: str, what: str) -> None:
    """One line of what happens."""
    sys.stdout.write(f"  {who:<10} {what}\n")
    sys.stdout.flush()


class Ada:
    """A contact who reads whatever is written to her, and answers."""

    def __init__(self, contact: Contact, folder: Path) -> None:
        self._contact = contact
        self._files = {sample.kind: (sample, sample.written(folder)) for sample in SAMPLES}

    async def live(self) -> None:
        """Until cancelled."""
        while True:
            heard = await self._contact.next("message", within=FOREVER)
            told = heard.get("text") or heard.get("caption") or ""
            say("Ada", f"got {heard['kind']} {told!r}" if told else f"got {heard['kind']}")
            await self._contact.do("read", ids=[heard["id"]])
            await self._contact.do("presence", to=heard["chat"], state="typing")
            await self._answer(heard, told)

    async def _answer(self, heard: Heard, told: str) -> None:
        word, _, rest = told.strip().partition(" ")
        asked = word.lower()
        if asked == "echo":
            await self._contact.text(heard["chat"], rest, reply=heard["id"])
        elif asked in self._files:
            sample, path = self._files[asked]
            await self._contact.send(
                asked, heard["chat"], path=str(path), mimeType=sample.mime_type
            )
        elif asked in _ANSWERS:
            await _ANSWERS[asked](self._contact, heard)
        else:
            await self._contact.text(heard["chat"], HELP)


async def _location(ada: Contact, heard: Heard) -> None:
    await ada.send("location", heard["chat"], latitude=52.52, longitude=13.405, name="Berlin")


async def _card(ada: Contact, heard: Heard) -> None:
    await ada.send("contact", heard["chat"], name="Ben", phones=["+12025550172"])


async def _poll(ada: Contact, heard: Heard) -> None:
    await ada.send("poll", heard["chat"], question="Lunch?", options=["Yes", "Later", "No"])


async def _react(ada: Contact, heard: Heard) -> None:
    await ada.do("reaction", target=heard["id"], emoji="👍")


async def _edit(ada: Contact, heard: Heard) -> None:
    said = await ada.text(heard["chat"], "Se you")
    await ada.do("edit", target=said, text="See you")


async def _revoke(ada: Contact, heard: Heard) -> None:
    said = await ada.text(heard["chat"], "Oh no")
    await ada.do("revoke", target=said)


async def _group(ada: Contact, heard: Heard) -> None:
    group = await ada.do("createGroup", subject="Ada and friends", members=[heard["phone"]])
    await ada.text(group["id"], "Welcome to the group")


_ANSWERS: Final[Mapping[str, Callable[[Contact, Heard], Awaitable[None]]]] = {
    "location": _location,
    "contact": _card,
    "poll": _poll,
    "react": _react,
    "edit": _edit,
    "revoke": _revoke,
    "group": _group,
}


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
    """A few words with Ada; fails if she does not answer, or Waypost does not say so."""
    for message, event in (
        ("echo Hello", "message.received"),
        ("image", "message.received"),
        ("react", "message.reaction"),
    ):
        before = hooks.events().count(event)
        say("API", f"POST /api/messages/text {message!r}")
        answer = await customer.text(f"+{ADA}", message)
        assert answer.status == 202, answer.body

        async def answered(event: str = event, before: int = before) -> bool:
            return hooks.events().count(event) > before

        await eventually(answered, within=PATIENCE)


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
        await customer.webhook(instance["id"], hooks.url)
        sys.stdout.write(invitation(system.url, instance["key"], folder))
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            living = group.create_task(Ada(contact, folder).live(), name="ada")
            if once:
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
    except whatsapp_needs.Missing as missing:
        sys.exit(str(missing))
    with tempfile.TemporaryDirectory(prefix="waypost-whatsapp-") as folder:
        asyncio.run(play(given.port or free_port(), once=given.once, folder=Path(folder)))


if __name__ == "__main__":
    main()
