"""Ada, a contact who reads whatever is written to her, and answers by what it says."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from tests.support.whatsapp_contact import Contact, Heard
from tests.support.whatsapp_files import SAMPLES

FOREVER: Final = 365.0 * 24 * 3600
HELP: Final = (
    "I am Ada. I answer to: echo …, image, video, audio, voice, document, sticker, location, "
    "contact, poll, react, edit, revoke, group."
)


class Ada:
    """She shows ``told`` what she gets, and sends files that she keeps in ``folder``."""

    def __init__(self, contact: Contact, folder: Path, *, told: Callable[[str], None]) -> None:
        self._contact = contact
        self._told = told
        self._files = {sample.kind: (sample, sample.written(folder)) for sample in SAMPLES}

    async def live(self) -> None:
        """Until cancelled."""
        while True:
            heard = await self._contact.next("message", within=FOREVER)
            told = heard.get("text") or heard.get("caption") or ""
            self._told(f"got {heard['kind']} {told!r}" if told else f"got {heard['kind']}")
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
        elif asked:
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
