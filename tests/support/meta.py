"""Meta, as far as the Cloud API goes: a Graph API that takes nothing but what Meta documents, and
the callbacks that Meta POSTs.

https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages
"""

import asyncio
import base64
import hmac
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, Self
from uuid import UUID

import orjson
from aiohttp import web

from shared.db.database import HotConnection
from shared.ids import new_id
from shared.security.sealing import KeyRing, Place

VERSION: Final = "v26.0"
TOKEN: Final = "EAAG-an-example-token"
APP_SECRET: Final = "an example app secret"
VERIFY_TOKEN: Final = "an example verify token"
BUSINESS: Final = "102290129340398"

Json = dict[str, Any]
# What a message of a type may say: each field with its type, and whether it must be there.
_FIELDS: Final[Mapping[str, Mapping[str, tuple[type | tuple[type, ...], bool]]]] = {
    "text": {"body": (str, True), "preview_url": (bool, False)},
    "image": {"id": (str, True), "caption": (str, False)},
    "video": {"id": (str, True), "caption": (str, False)},
    "audio": {"id": (str, True), "voice": (bool, False)},
    "document": {"id": (str, True), "caption": (str, False), "filename": (str, False)},
    "sticker": {"id": (str, True)},
    "location": {
        "latitude": ((int, float), True),
        "longitude": ((int, float), True),
        "name": (str, False),
        "address": (str, False),
    },
    "reaction": {"message_id": (str, True), "emoji": (str, True)},
}
_TYPES: Final = {
    "image": {"image/jpeg", "image/png"},
    "video": {"video/mp4", "video/3gpp"},
    "audio": {"audio/ogg", "audio/mpeg", "audio/mp4", "audio/aac", "audio/amr"},
    "sticker": {"image/webp"},
}


class Wrong(Exception):
    """A request that Meta would refuse as malformed."""


@dataclass(frozen=True)
class Sent:
    """A message that was accepted."""

    number: str
    id: str
    body: Json

    @property
    def to(self) -> str:
        """Whom it is for."""
        return str(self.body.get("to") or self.body.get("recipient"))

    @property
    def ours(self) -> str:
        """What was sent along with it."""
        return str(self.body["biz_opaque_callback_data"])


@dataclass(frozen=True)
class Error:
    """An answer that is none: a status with Meta's error, or with a body of somebody else's."""

    status: int
    code: int | None = None
    message: str = "Something is wrong"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass
class Meta:
    """A server. ``numbers`` maps ids of numbers to what they look like to people.

    ``refusing`` says what somebody's messages are answered, ``silent`` who is never answered;
    ``wrong`` is what no request of ours should have been.
    """

    url: str = ""
    token: str = TOKEN
    numbers: dict[str, str] = field(default_factory=dict)
    refusing: dict[str, Error] = field(default_factory=dict)
    failing: list[Error] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    sent: list[Sent] = field(default_factory=list)
    marks: list[Json] = field(default_factory=list)
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    then: Callable[[Sent], Awaitable[None]] | None = None
    _leaving: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        """Listen on loopback; in the end, nothing may have been asked that Meta does not know."""
        meta = cls()
        app = web.Application(client_max_size=200 * 1024**2)
        base = f"/{VERSION}"
        app.router.add_post(f"{base}/{{number}}/messages", meta.asked(meta.message))
        app.router.add_post(f"{base}/{{number}}/media", meta.asked(meta.upload))
        app.router.add_get(f"{base}/{{number}}/whatsapp_business_profile", meta.asked(meta.profile))
        app.router.add_get(f"{base}/{{id}}", meta.asked(meta.look))
        app.router.add_get("/files/{id}", meta.asked(meta.download))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        meta.url = f"http://127.0.0.1:{runner.addresses[0][1]}{base}"
        try:
            yield meta
        finally:
            meta._leaving.set()
            await runner.cleanup()
        assert meta.wrong == []

    def add_number(self) -> str:
        """A number, by Meta's id."""
        id_ = str(secrets.randbelow(10**14) + 10**14)
        self.numbers[id_] = f"+1 202-555-{len(self.numbers):04d}"
        return id_

    def add_file(self, content: bytes, mime_type: str) -> str:
        """A file that somebody has sent, by Meta's id."""
        id_ = str(secrets.randbelow(10**15) + 10**15)
        self.files[id_] = (content, mime_type)
        return id_

    def settings(self, number: str) -> Json:
        """What an instance is made with."""
        return {
            "phoneNumberId": number,
            "businessAccountId": BUSINESS,
            "accessToken": self.token,
            "appSecret": APP_SECRET,
            "verifyToken": VERIFY_TOKEN,
        }

    def asked(
        self, handler: Callable[[web.Request], Awaitable[Json | web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler behind what Meta asks of every request."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != f"Bearer {self.token}":
                return _answer(Error(401, 190, "The access token could not be decrypted"))
            if self.failing:
                return _answer(self.failing.pop(0))
            try:
                said = await handler(request)
            except Wrong as error:
                self.wrong.append(f"{request.method} {request.path}: {error}")
                return _answer(Error(400, 100, f"Invalid parameter: {error}"))
            return said if isinstance(said, web.StreamResponse) else web.json_response(said)

        return handle

    async def message(self, request: web.Request) -> Json | web.StreamResponse:
        """POST /{number}/messages: a message, or a mark that one was read."""
        number = self._number(request)
        if request.content_type != "application/json":
            raise Wrong(f"is {request.content_type}")
        body = await request.json()
        if body.get("messaging_product") != "whatsapp":
            raise Wrong("has no messaging_product")
        if "status" in body:
            return self._mark(body)
        to = _checked(body, self.files)
        if to in self.silent:
            await self._leaving.wait()
        if (error := self.refusing.get(to)) is not None:
            return _answer(error)
        sent = Sent(number, f"wamid.{base64.b64encode(secrets.token_bytes(24)).decode()}", body)
        self.sent.append(sent)
        if self.then is not None:
            await self.then(sent)
        by = {"wa_id": to} if "to" in body else {"user_id": to}
        return {
            "messaging_product": "whatsapp",
            "contacts": [{"input": to, **by}],
            "messages": [{"id": sent.id, "message_status": "accepted"}],
        }

    async def upload(self, request: web.Request) -> Json:
        """POST /{number}/media."""
        self._number(request)
        if request.content_type != "multipart/form-data":
            raise Wrong(f"is {request.content_type}")
        form = await request.post()
        if set(form) != {"file", "type", "messaging_product"}:
            raise Wrong(f"has the fields {sorted(form)}")
        file = form["file"]
        if not isinstance(file, web.FileField) or not file.filename:
            raise Wrong("has no file with a name")
        if form["messaging_product"] != "whatsapp" or form["type"] != file.content_type:
            raise Wrong("does not say what the file is")
        return {"id": self.add_file(await asyncio.to_thread(file.file.read), file.content_type)}

    async def profile(self, request: web.Request) -> Json:
        """GET /{number}/whatsapp_business_profile."""
        self._number(request)
        about = {"about": "Open from nine to five", "messaging_product": "whatsapp"}
        return {"data": [about]}

    async def look(self, request: web.Request) -> Json | web.StreamResponse:
        """GET /{id}: a number or a file."""
        id_ = request.match_info["id"]
        if id_ in self.numbers:
            return {
                "id": id_,
                "display_phone_number": self.numbers[id_],
                "verified_name": "Example Ltd",
            }
        if id_ not in self.files:
            return _answer(Error(400, 100, f"Object with ID '{id_}' does not exist"))
        content, mime_type = self.files[id_]
        return {
            "messaging_product": "whatsapp",
            "url": f"{self.url.removesuffix(f'/{VERSION}')}/files/{id_}",
            "mime_type": mime_type,
            "sha256": sha256(content).hexdigest(),
            "file_size": len(content),
            "id": id_,
        }

    async def download(self, request: web.Request) -> web.StreamResponse:
        """GET of what ``look`` has named."""
        content, mime_type = self.files[request.match_info["id"]]
        return web.Response(body=content, content_type=mime_type)

    def _number(self, request: web.Request) -> str:
        number = request.match_info["number"]
        if number not in self.numbers:
            raise Wrong("is about a number that does not exist")
        return number

    def _mark(self, body: Json) -> Json:
        extra = body.keys() - {"messaging_product", "status", "message_id", "typing_indicator"}
        if extra or body["status"] != "read" or not body.get("message_id"):
            raise Wrong(f"is no mark: {body}")
        if body.get("typing_indicator", {"type": "text"}) != {"type": "text"}:
            raise Wrong("shows what Meta does not know")
        self.marks.append(body)
        return {"success": True}


def _checked(body: Json, files: Mapping[str, tuple[bytes, str]]) -> str:
    """Whom a message is for; raises ``Wrong`` unless it is as Meta documents it."""
    kind = body.get("type")
    known = {
        "messaging_product",
        "recipient_type",
        "to",
        "recipient",
        "type",
        "context",
        "biz_opaque_callback_data",
        kind,
    }
    if extra := body.keys() - known:
        raise Wrong(f"has {sorted(extra)}")
    if body.get("recipient_type") != "individual" or ("to" in body) == ("recipient" in body):
        raise Wrong("is for nobody")
    if not re.fullmatch(r"[1-9]\d{6,14}", body.get("to", "1234567")):
        raise Wrong("is for no number")
    if not re.fullmatch(r"[A-Z]{2}\.[A-Za-z0-9]+", body.get("recipient", "US.1")):
        raise Wrong("is for no user id")
    if not str(body.get("context", {"message_id": "wamid.x"})["message_id"]).startswith("wamid."):
        raise Wrong("answers what is no message")
    if len(body.get("biz_opaque_callback_data", "")) > 512:
        raise Wrong("has too much to send along")
    said = body.get(str(kind))
    if kind == "contacts":
        _check_cards(said)
    else:
        _check_fields(str(kind), said)
    if isinstance(said, dict) and "id" in said:
        _check_file(str(kind), said, files)
    return str(body.get("to") or body.get("recipient"))


def _check_fields(kind: str, said: Any) -> None:
    fields = _FIELDS.get(kind)
    if fields is None or not isinstance(said, dict):
        raise Wrong(f"is of the type {kind}")
    if extra := said.keys() - fields.keys():
        raise Wrong(f"says {sorted(extra)} as {kind}")
    for name, (of_type, needed) in fields.items():
        if name not in said:
            if needed:
                raise Wrong(f"has no {name}")
        elif not isinstance(said[name], of_type):
            raise Wrong(f"has a {name} that is none")


def _check_file(kind: str, said: Json, files: Mapping[str, tuple[bytes, str]]) -> None:
    if said["id"] not in files:
        raise Wrong("has a file that was not uploaded")
    mime_type = files[said["id"]][1]
    if mime_type not in _TYPES.get(kind, {mime_type}):
        raise Wrong(f"has a {kind} that is {mime_type}")


def _check_cards(said: Any) -> None:
    if not isinstance(said, list) or not said:
        raise Wrong("has no cards")
    for card in said:
        if card.keys() - {"name", "phones"} or not card["name"].get("formatted_name"):
            raise Wrong("has a card of nobody")
        if not card["name"].keys() & {"first_name", "last_name", "middle_name"}:
            raise Wrong("has a card with half a name")
        for phone in card.get("phones", []):
            if phone.keys() - {"phone", "type", "wa_id"}:
                raise Wrong("has a card with what is no phone")


def _answer(error: Error) -> web.Response:
    if error.code is None:
        return web.Response(
            status=error.status, headers=error.headers, body=error.body or b"<html>Sorry</html>"
        )
    said = {
        "message": f"(#{error.code}) {error.message}",
        "type": "OAuthException",
        "code": error.code,
        "error_data": {"messaging_product": "whatsapp", "details": error.message},
        "fbtrace_id": "AFPp7DRmCgcW",
    }
    return web.json_response({"error": said}, status=error.status, headers=error.headers)


# What Meta POSTs


def a_text(text: str = "Hello", *, by: str = "12025550142", **given: Any) -> Json:
    """A message as a callback holds it."""
    return {
        "from": by,
        "id": f"wamid.{secrets.token_hex(16)}",
        "timestamp": "1768478400",
        "type": "text",
        "text": {"body": text},
        **given,
    }


def a_message(kind: str, said: Any, *, by: str = "12025550142", **given: Any) -> Json:
    """A message of another kind."""
    message = a_text(by=by, **given)
    del message["text"]
    return {**message, "type": kind, kind: said}


def a_status(sent: Sent, status: str, **given: Any) -> Json:
    """A receipt as a callback holds it."""
    return {
        "id": sent.id,
        "status": status,
        "timestamp": "1768478400",
        "recipient_id": sent.to,
        "biz_opaque_callback_data": sent.ours,
        "pricing": {"billable": True, "pricing_model": "PMP", "category": "service"},
        **given,
    }


def a_value(number: str, **given: Any) -> Json:
    """What has changed with a number: ``messages`` or ``statuses``."""
    people = {
        message["from"]: {
            "profile": {"name": "Ada"},
            "wa_id": message["from"],
            "user_id": f"US.{message['from']}",
        }
        for message in given.get("messages", ())
        if "from" in message
    }
    return {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "12025550000", "phone_number_id": number},
        **({"contacts": list(people.values())} if people else {}),
        **given,
    }


def a_callback(*values: Json, business: str = BUSINESS) -> Json:
    """All of what Meta POSTs at once."""
    changes = [{"field": "messages", "value": value} for value in values]
    entry = {"id": business, "changes": changes}
    return {"object": "whatsapp_business_account", "entry": [entry]}


def signed(body: Json, secret: str = APP_SECRET) -> tuple[bytes, dict[str, str]]:
    """A callback as it goes over the wire: its bytes and its headers."""
    raw = orjson.dumps(body)
    return raw, signature_of(raw, secret)


def signature_of(raw: bytes, secret: str = APP_SECRET) -> dict[str, str]:
    """The headers that such bytes come with."""
    signature = hmac.new(secret.encode(), raw, sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-Hub-Signature-256": f"sha256={signature}",
    }


async def store(
    connection: HotConnection, ring: KeyRing, tenant: UUID, instance: UUID, values: Sequence[Json]
) -> UUID:
    """Put a callback where the gateway puts it; its id."""
    id_, body = new_id(), orjson.dumps({"values": list(values)})
    await connection.execute(
        "INSERT INTO sessions.callbacks (id, tenant_id, instance_id, digest, sealed, received_at)"
        " VALUES ($1, $2, $3, $4, $5, clock_timestamp())",
        id_,
        tenant,
        instance,
        sha256(body).digest(),
        ring.seal(body, Place(tenant, "sessions.callbacks", str(id_))),
    )
    return id_
