"""The whatsmeow engine on trial for what it says, hears and asks; its contact is not ours."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from services.sessions.engines.port import Engine, Opening, Sink
from shared.contracts.content import ContactCard, Content, Location, Media, Poll, PollVote, Text
from tests.contract.arrived import Arrived
from tests.support.linked_devices import Scanning, Town, an_engine
from tests.support.whatsapp_contact import Contact, Heard

ADA: Final = "491510000666"
# What of that which the contact hears somebody has said to it.
_SAID: Final = frozenset({"message", "reaction", "edited", "revoked"})
_KINDS: Final = {"edited": "edit", "revoked": "revoke"}
_WORDS: Final = ("text", "caption", "place", "person", "question", "emoji")


class WhatsmeowContentTrial:
    """Linked devices, against a local server, with a contact that runs on Baileys."""

    contact = f"{ADA}@s.whatsapp.net"
    nobody = "491510000999"

    def __init__(self, town: Town, contact: Contact, folder: Path) -> None:
        self._town = town
        self._ada = contact
        self._folder = folder
        self._said: set[str] = set()
        self.engine: Engine = an_engine(town.url, town.database, town.whatsapp)

    def watched(self, sink: Sink) -> Sink:
        """The sink, with a phone that scans each code but those that are for nobody to scan."""
        self._town.scanning = Scanning(self._town.whatsapp, sink)
        return self._town.scanning

    async def unopened(self, *, scanned: bool = True) -> Opening:
        opening = await self._town.opening()
        if not scanned:
            self._town.scanning.unscanned.add(opening.instance_id)
        return opening

    async def say(
        self,
        opening: Opening,
        content: Content,
        *,
        file: bytes | None = None,
        group: str | None = None,
    ) -> str:
        if group is not None:
            await self._ada.hears(lambda one: one["event"] == "group" and one["id"] == group)
        kind, given = await self._put(content, file)
        said = await self._ada.send(kind, group or self._town.number(opening), **given)
        self._said.add(said)
        return said

    async def change(
        self,
        opening: Opening,
        target_id: str,
        *,
        action: Literal["edit", "revoke", "reaction"],
        text: str = "",
    ) -> None:
        if action == "reaction":
            if target_id not in self._said:
                await self._known(target_id)
            await self._ada.do("reaction", target=target_id, emoji=text)
        else:
            await self._ada.do(action, target=target_id, text=text)

    async def arrived(self, opening: Opening, count: int) -> Sequence[Arrived]:
        number = self._town.number(opening)
        heard = await self._ada.hears(
            lambda one: one["event"] in _SAID and one.get("phone") == number, count
        )
        return [await self._seen(one) for one in heard]

    async def enter(self, opening: Opening, code: str, number: str) -> None:
        await self._town.whatsapp.add_phone(number)
        await self._town.whatsapp.enter(number, code)

    async def _known(self, id_: str) -> None:
        """Return when the contact has heard a message: before, it cannot name it."""
        await self._ada.hears(lambda one: one.get("id") == id_)

    async def _put(  # noqa: PLR0911 - one for each kind
        self, content: Content, file: bytes | None
    ) -> tuple[str, dict[str, Any]]:
        """How the contact is told to say something: the command, and what goes with it."""
        match content:
            case Text(text=text, reply_to=None):
                return "text", {"text": text}
            case Text(text=text, reply_to=str(target)):
                await self._known(target)
                return "text", {"text": text, "reply": target}
            case Location(latitude=latitude, longitude=longitude, name=name):
                return "location", {"latitude": latitude, "longitude": longitude, "name": name}
            case ContactCard(name=name, phones=phones):
                return "contact", {"name": name, "phones": list(phones)}
            case Poll(question=question, options=options):
                return "poll", {"question": question, "options": list(options)}
            case PollVote(poll_id=poll, options=options):
                await self._known(poll)
                return "vote", {"poll": poll, "options": list(options)}
            case Media(kind=kind, mime_type=mime_type, filename=filename) if file is not None:
                path = self._folder / (filename or "file")
                await asyncio.to_thread(path.write_bytes, file)
                return kind, {"path": str(path), "mimeType": mime_type}
            case _:
                raise AssertionError(f"the contact cannot say {content.kind}")

    async def _seen(self, heard: Heard) -> Arrived:
        file = None
        if "media" in heard:
            assert "error" not in heard["media"], heard["media"]
            file = await asyncio.to_thread(Path(heard["media"]["path"]).read_bytes)
        return Arrived(
            kind=_KINDS.get(heard["event"]) or heard.get("kind") or heard["event"],
            group=heard["chat"] if heard.get("group") else None,
            text=next((heard[word] for word in _WORDS if word in heard), None),
            target=heard.get("target"),
            file=file,
        )


@asynccontextmanager
async def whatsmeow(database_url: str) -> AsyncIterator[WhatsmeowContentTrial]:
    """A trial, with a server and a contact that are there for one test."""
    with TemporaryDirectory(prefix="waypost-tests-") as name:
        folder = Path(name)
        async with (
            Town.running(database_url, folder) as town,
            town.whatsapp.contact("ada", ADA) as ada,
        ):
            yield WhatsmeowContentTrial(town, ada, folder)
