"""Sending files: from a form, from JSON, or in the generic form of a message."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final
from uuid import UUID

from aiohttp import web
from aiohttp.typedefs import Handler

from services.gateway.api.content import Contents, guessed, suggested
from services.gateway.api.gate import PRINCIPAL, id_in_path
from services.gateway.api.schemas.outbound import (
    Attached,
    MediaFields,
    NewMedia,
    NewMessage,
    SentForm,
)
from services.gateway.api.sending import Sending
from services.gateway.api.staging import MULTIPART
from services.gateway.api.uploads import StoredMedia, Uploads
from services.gateway.domain.principal import Principal
from shared.errors import Rejected
from shared.media.kinds import MediaKind
from shared.security.egress import EgressPolicy, UrlRefused
from shared.web.body import invalid, validated

# Any file may go as a document, so this asks for no more than that it is there.
_ANYTHING: Final[MediaKind] = "document"


class Attaching:
    """``/api/messages/image`` and its siblings, and the generic form.

    A file that came with a request is stored first and forgotten if its message is refused.
    ``policy`` says where URLs may lead; whoever fetches them looks closer.
    """

    def __init__(
        self,
        *,
        sending: Sending,
        contents: Contents,
        uploads: Uploads,
        policy: EgressPolicy,
    ) -> None:
        self._sending = sending
        self._contents = contents
        self._uploads = uploads
        self._policy = policy

    def of(self, kind: MediaKind) -> Handler:
        """The handler for one kind of files."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.content_type == MULTIPART:
                return await self._form(request, kind)
            return await self._json(request, kind)

        return handle

    async def message(self, request: web.Request) -> web.StreamResponse:
        """Any message; the instance may also be named by the path."""
        body = await self._uploads.read_model(request, NewMessage, request[PRINCIPAL])
        if "id" in request.match_info:
            body = _by(body, id_in_path(request))
        if body.media is not None:
            await self._sending.sender(request[PRINCIPAL], body)
            kind = body.media.type or await self._kind(request[PRINCIPAL], body.media)
            return await self._send(request, body, body.media, kind, body.said)
        words = body.said or ""
        return await self._sending.send(
            request, body, lambda by: self._contents.text(by, body, words)
        )

    async def _json(self, request: web.Request, kind: MediaKind) -> web.StreamResponse:
        body = await self._uploads.read_model(request, NewMedia, request[PRINCIPAL])
        # First, so that whoever may not send by the instance stores nothing either.
        await self._sending.sender(request[PRINCIPAL], body)
        return await self._send(request, body, body, kind, body.caption)

    async def _form(self, request: web.Request, kind: MediaKind) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        stored = await self._uploads.take_file(request, kind, kind, principal)
        async with self._kept(principal, stored):
            body = validated(stored.fields, MediaFields)
            said = SentForm.model_construct(
                {*body.model_fields_set, "media_id"}, **dict(body), media_id=stored.media_id
            )
            return await self._sending.send(
                request,
                body,
                lambda by: self._contents.media(by, body, stored, kind, caption=body.caption),
                said=said,
            )

    async def _send(
        self,
        request: web.Request,
        body: NewMedia | NewMessage,
        attached: Attached,
        kind: MediaKind,
        caption: str | None,
    ) -> web.StreamResponse:
        principal = request[PRINCIPAL]
        if attached.url is not None:
            self._vet(attached.url)
            return await self._sending.send(
                request,
                body,
                lambda by: self._contents.media(by, body, attached, kind, caption=caption),
            )
        stored = await self._stored(request, principal, attached, kind)
        async with self._kept(principal, stored):
            return await self._sending.send(
                request,
                body,
                lambda by: self._contents.media(by, body, stored, kind, caption=caption),
            )

    async def _stored(
        self, request: web.Request, principal: Principal, attached: Attached, kind: MediaKind
    ) -> StoredMedia:
        if attached.base64 is not None:
            return await self._uploads.from_base64(
                request,
                attached.base64,
                kind=kind,
                principal=principal,
                declared=attached.mime_type,
                filename=attached.filename,
            )
        if attached.media_id is None:
            raise TypeError("a file without a source")
        stored = await self._uploads.named(principal, attached.media_id, kind)
        return stored if attached.filename is None else replace(stored, filename=attached.filename)

    @asynccontextmanager
    async def _kept(self, principal: Principal, stored: StoredMedia) -> AsyncIterator[None]:
        """Keep what came with a message, unless that is refused and so was not stored."""
        try:
            yield
        except Rejected:
            await self._uploads.discard(principal, stored)
            raise

    async def _kind(self, principal: Principal, attached: Attached) -> MediaKind:
        """As what a file is sent if its sender does not say."""
        if attached.media_id is not None:
            found = await self._uploads.named(principal, attached.media_id, _ANYTHING)
            return suggested(found.mime_type)
        return suggested(guessed(attached))

    def _vet(self, url: str) -> None:
        try:
            self._policy.vet(url)
        except UrlRefused as error:
            raise invalid({"url": error.message}) from None


def _by(body: NewMessage, instance_id: UUID) -> NewMessage:
    """The message of the instance that the path names."""
    if body.instance_id not in {None, instance_id}:
        raise invalid({"instanceId": "names another instance than the path; leave it out"})
    return body.model_copy(update={"instance_id": instance_id})
