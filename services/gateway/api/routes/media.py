"""Files."""

from collections.abc import Sequence
from typing import Final

from services.gateway.api.media import Media
from services.gateway.api.schemas.fields import Deleted
from services.gateway.api.schemas.media import (
    MediaQuery,
    MediaView,
    NewFile,
    StorageView,
    UploadForm,
)
from services.gateway.domain.access import Needs
from shared.web.routes import Also, Raw, Route

_TAG = "Media"
_OF_A_FILE: Final = ("ETag", "Accept-Ranges", "Content-Disposition")
_BYTES: Final = Raw(
    description="The bytes, under the type that the file has.",
    schema={"type": "string", "format": "binary"},
)


def routes(media: Media) -> Sequence[Route]:
    """What there is under ``/api/media``, and how full it is."""
    return (
        Route(
            method="POST",
            path="/api/media",
            handler=media.create,
            audited="media.uploaded",
            summary="Upload a file, to be sent by any number of messages",
            description="As a form with the file as `file`, or as base64. Its type is told by its"
            " first bytes. The same content is kept once, whatever it is called.",
            tag=_TAG,
            permission=Needs.SEND,
            request=NewFile,
            form=UploadForm,
            response=MediaView,
            status=201,
            idempotent=True,
            limited=True,
            errors=("QUOTA_EXCEEDED", "ENGINE_UNAVAILABLE"),
            aliases=("/api/media/upload",),
        ),
        Route(
            method="GET",
            path="/api/media",
            handler=media.page,
            summary="List files, latest first",
            description="What was uploaded and what was received. An instance key sees what its"
            " own instance has uploaded or received.",
            tag=_TAG,
            permission=Needs.READ,
            query=MediaQuery,
            response=MediaView,
            paginated=True,
            limited=True,
        ),
        Route(
            method="GET",
            path="/api/media/{id}",
            handler=media.get,
            summary="What is known of a file",
            tag=_TAG,
            permission=Needs.READ,
            response=MediaView,
            limited=True,
        ),
        Route(
            method="GET",
            path="/api/media/{id}/download",
            handler=media.download,
            summary="The file itself",
            description="Takes `Range` (206, or 416 for a part that is not there), `If-Range` and"
            " `If-None-Match` (304); the ETag is the SHA-256. 409 with `Retry-After` while a"
            " received file is still being fetched.",
            tag=_TAG,
            permission=Needs.READ,
            raw={"*/*": _BYTES},
            headers=_OF_A_FILE,
            also=(
                Also(
                    status=206,
                    description="The part that `Range` asks for",
                    headers=("Content-Range", *_OF_A_FILE),
                    raw={"*/*": _BYTES},
                ),
                Also(status=304, description="What `If-None-Match` names", headers=("ETag",)),
                Also(
                    status=416,
                    description="The file has no such part",
                    headers=("Content-Range",),
                    problem="BAD_REQUEST",
                ),
            ),
            limited=True,
            errors=("CONFLICT", "ENGINE_UNAVAILABLE"),
        ),
        Route(
            method="DELETE",
            path="/api/media/{id}",
            handler=media.delete,
            audited="media.deleted",
            summary="Delete a file",
            description="409 while a message that has not been sent yet carries it. Messages that"
            " were sent keep what they said of it.",
            tag=_TAG,
            permission=Needs.SEND,
            response=Deleted,
            limited=True,
            errors=("CONFLICT",),
        ),
        Route(
            method="GET",
            path="/api/analytics/storage",
            handler=media.storage,
            summary="How much the organization's files take, and how much they may",
            tag="Statistics",
            permission=Needs.STORAGE,
            response=StorageView,
            limited=True,
        ),
    )
