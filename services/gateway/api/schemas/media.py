"""Files: brought by callers, or sent to their instances."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, WithJsonSchema

from services.gateway.store.media import MediaFile
from shared.media.kinds import MediaKind
from shared.web.pagination import PageQuery
from shared.web.schemas import ApiModel, ApiView, Instant

_KIND = "The kind of message it is for: checked now rather than when it is sent."

Binary = Annotated[
    str, WithJsonSchema({"type": "string", "format": "binary", "examples": ["(the file)"]})
]


class UploadFields(ApiModel):
    """What a form may say beside its file."""

    kind: MediaKind | None = Field(default=None, description=_KIND)


class UploadForm(UploadFields):
    """A file as a form; its name and its type are those of the part."""

    file: Binary


class NewFile(ApiModel):
    """A file as base64."""

    base64: Annotated[
        str,
        Field(
            repr=False,
            description="By RFC 4648, or a `data:` URL.",
            examples=["iVBORw0KGgoAAAANSUhEUg=="],
        ),
    ]
    filename: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, examples=["offer.pdf"]
    )
    mime_type: Annotated[str, StringConstraints(max_length=255)] | None = Field(
        default=None,
        description="Heard only where the bytes leave a choice.",
        examples=["application/pdf"],
    )
    kind: MediaKind | None = Field(default=None, description=_KIND)


class Arrived(ApiModel):
    """What makes two uploads the same: what they hold, and under which name."""

    sha256: str
    filename: str | None
    mime_type: str
    kind: MediaKind | None


class MediaQuery(PageQuery):
    """Which files to list, latest first."""

    source: Literal["upload", "inbound"] | None = Field(
        default=None, description="Only what was uploaded, or only what was received."
    )


class MediaView(ApiView):
    """A file. One that was received is pending until it has been fetched from WhatsApp."""

    id: UUID
    source: Literal["upload", "inbound"]
    instance_id: UUID | None = Field(
        description="Which instance received it, or whose key uploaded it."
    )
    status: Literal["pending", "stored", "failed"]
    mime_type: str = Field(examples=["image/png"])
    size: int | None = Field(description="In bytes.", examples=[48213])
    sha256: str | None = Field(
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
    )
    filename: str | None = Field(examples=["offer.png"])
    error: str | None = Field(description="Why it could not be fetched.")
    created_at: Instant

    @classmethod
    def of(cls, file: MediaFile) -> "MediaView":
        return cls.model_validate(file, from_attributes=True)


class StorageView(ApiView):
    """How much is kept. Only uploads count against the limit: nobody chooses what they are sent."""

    used: int = Field(description="Bytes of uploads, each file once.", examples=[1048576])
    limit: int = Field(examples=[5368709120])
    percent_used: float = Field(examples=[0.02])
    received: int = Field(description="Bytes of files that were received.", examples=[52428800])
