"""The Cloud API's engine on trial, with power over a Meta of its own."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID

from services.sessions.domain.lease import Lease
from services.sessions.engines.port import Engine, Opening, Refused, Retryable, Sink
from shared.contracts.content import ContactCard, Content, Location, Media, Text
from shared.db.database import Database
from shared.db.tables.grants import role
from shared.errors import Throttled
from shared.ids import new_id
from tests.contract.arrived import Arrived
from tests.support import meta as metas
from tests.support.cloud_api import an_engine
from tests.support.keys import RING
from tests.support.leases import take_shard
from tests.support.meta import Error, Json, Meta, Sent

ADA = "12025550142"
_SAID = {
    "text": lambda said: said["body"],
    "location": lambda said: said["name"],
    "contacts": lambda said: said[0]["name"]["formatted_name"],
    "image": lambda said: said.get("caption"),
    "reaction": lambda said: said["emoji"],
}


class CloudApiTrial:
    """Numbers at a Meta that gives receipts for whatever it is sent."""

    ordinary = contact = f"{ADA}@s.whatsapp.net"
    nobody = "12025550101"
    refusing: Mapping[str, type[Exception]] = {
        "12025550102@s.whatsapp.net": Refused,
        "12025550103@s.whatsapp.net": Retryable,
        "12025550112@s.whatsapp.net": Throttled,
    }

    def __init__(self, database: Database, meta: Meta) -> None:
        self._database = database
        self._meta = meta
        self._instances: dict[str, UUID] = {}
        self.engine: Engine = an_engine(database, meta)
        meta.then = self._receipts
        meta.refusing = {
            "12025550102": Error(400, 131026, "Message undeliverable"),
            "12025550103": Error(500, 131016, "Service unavailable"),
            "12025550112": Error(429, 130429, "Rate limit hit"),
        }

    def settings(self, instance_id: UUID) -> Mapping[str, object]:
        number = self._meta.add_number()
        self._instances[number] = instance_id
        return self._meta.settings(number)

    def watched(self, sink: Sink) -> Sink:
        return sink

    async def owned(self) -> Lease:
        return await take_shard(self._database)

    async def taken_over(self, lease: Lease) -> Lease:
        return await take_shard(self._database, owner="them", shard=lease.shard)

    async def unopened(self, *, scanned: bool = True) -> Opening:
        instance_id = new_id()
        return Opening(
            instance_id=instance_id,
            tenant_id=new_id(),
            lease=await self.owned(),
            phone_number=None,
            settings=self.settings(instance_id),
        )

    async def write(self, instance_id: UUID, text: str) -> None:
        await self._post(instance_id, messages=[metas.a_text(text, by=ADA)])

    async def silenced(self, instance_id: UUID) -> str:
        self._meta.silent.add("12025550105")
        return "12025550105@s.whatsapp.net"

    async def say(
        self,
        opening: Opening,
        content: Content,
        *,
        file: bytes | None = None,
        group: str | None = None,
    ) -> str:
        assert group is None
        message = self._written(content, file)
        await self._post(opening.instance_id, messages=[message])
        return str(message["id"])

    async def change(
        self,
        opening: Opening,
        target_id: str,
        *,
        action: Literal["edit", "revoke", "reaction"],
        text: str = "",
    ) -> None:
        assert action == "reaction"
        said = {"message_id": target_id, "emoji": text}
        await self._post(opening.instance_id, messages=[metas.a_message(action, said, by=ADA)])

    async def arrived(self, opening: Opening, count: int) -> Sequence[Arrived]:
        assert len(self._meta.sent) >= count
        return [self._seen(sent) for sent in self._meta.sent[:count]]

    async def enter(self, opening: Opening, code: str, number: str) -> None:
        raise AssertionError("no phone is linked")

    def _written(self, content: Content, file: bytes | None) -> Json:
        match content:
            case Text(text=text, reply_to=target):
                context = {} if target is None else {"context": {"from": ADA, "id": target}}
                return metas.a_text(text, by=ADA, **context)
            case Location(latitude=latitude, longitude=longitude, name=name):
                place = {"latitude": latitude, "longitude": longitude, "name": name}
                return metas.a_message("location", place, by=ADA)
            case ContactCard(name=name, phones=phones):
                card = {"name": {"formatted_name": name}, "phones": [{"phone": p} for p in phones]}
                return metas.a_message("contacts", [card], by=ADA)
            case Media(kind=kind, mime_type=mime_type, filename=filename) if file is not None:
                id_ = self._meta.add_file(file, mime_type)
                said = {"id": id_, "mime_type": mime_type, "filename": filename}
                return metas.a_message(kind, said, by=ADA)
            case _:
                raise AssertionError(f"the contact cannot say {content.kind}")

    def _seen(self, sent: Sent) -> Arrived:
        kind = sent.body["type"]
        said: Any = sent.body[kind]
        file = self._meta.files[said["id"]][0] if "id" in said else None
        return Arrived(
            kind="contact" if kind == "contacts" else str(kind),
            text=_SAID[kind](said),
            target=said.get("message_id") if kind == "reaction" else None,
            file=file,
        )

    async def _receipts(self, sent: Sent) -> None:
        statuses = [metas.a_status(sent, status) for status in ("delivered", "read")]
        await self._post(self._instances[sent.number], statuses=statuses)

    async def _post(self, instance_id: UUID, **told: Any) -> None:
        value = metas.a_value("1", **told)
        async with self._database.hot() as connection:
            await metas.store(connection, RING, new_id(), instance_id, [value])


@asynccontextmanager
async def cloud_api(database_url: str) -> AsyncIterator[CloudApiTrial]:
    async with (
        Meta.running() as meta,
        Database.open(database_url, role=role("sessions")) as database,
    ):
        yield CloudApiTrial(database, meta)
