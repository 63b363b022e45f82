"""Where media is kept, and what of it is taken: for every service that touches files."""

import re
from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared.settings import ServiceSettings

S3: Final = "s3://"

TYPES: Final = (
    "image/*",
    "video/*",
    "audio/*",
    "text/plain",
    "text/csv",
    "text/vcard",
    "text/calendar",
    "application/pdf",
    "application/rtf",
    "application/json",
    "application/zip",
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.openxmlformats-officedocument.*",
    "application/vnd.oasis.opendocument.*",
)

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}(/.*)?")


class MediaSettings(ServiceSettings):
    """One media store for all services: files that one of them keeps, another one sends."""

    media_store: str = Field(
        validation_alias=AliasChoices("media_store", "WAYPOST_MEDIA_STORE"),
        description="Where files are kept: s3://bucket/prefix, or a folder that all replicas of"
        " gateway and sessions share.",
    )
    media_s3_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("media_s3_endpoint", "WAYPOST_MEDIA_S3_ENDPOINT"),
        description="The URL of an S3-compatible server; unset: Amazon's of the region.",
    )
    media_s3_region: str = Field(
        "us-east-1",
        validation_alias=AliasChoices("media_s3_region", "WAYPOST_MEDIA_S3_REGION"),
        description="The region of the bucket.",
    )
    media_s3_access_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("media_s3_access_key", "WAYPOST_MEDIA_S3_ACCESS_KEY"),
        description="The access key's id; unset: what the machine's own role or AWS_… gives.",
    )
    media_s3_secret_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("media_s3_secret_key", "WAYPOST_MEDIA_S3_SECRET_KEY"),
        description="The access key's secret.",
    )
    max_file_size: int = Field(
        10 * 1024 * 1024,
        ge=1024,
        validation_alias=AliasChoices("max_file_size", "MAX_FILE_SIZE"),
        description="The largest file that is taken, in bytes.",
    )
    media_types: Annotated[tuple[str, ...], NoDecode] = Field(
        TYPES,
        validation_alias=AliasChoices("media_types", "WAYPOST_MEDIA_TYPES"),
        description="The types of files that are taken, parted by commas; * stands for any part.",
    )

    @field_validator("media_store")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        if value.startswith(S3):
            if not _BUCKET.fullmatch(value.removeprefix(S3)):
                raise ValueError("must name a bucket, as s3://bucket or s3://bucket/prefix")
        elif "://" in value or not value.strip():
            raise ValueError("must be a folder, or s3://bucket/prefix")
        return value

    @field_validator("media_s3_endpoint")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("must start with https:// or http://")
        return value

    @field_validator("media_types", mode="before")
    @classmethod
    def _types(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())

    def takes(self, mime_type: str) -> bool:
        """Whether files of this type are taken at all."""
        return any(fnmatchcase(mime_type, pattern) for pattern in self.media_types)
