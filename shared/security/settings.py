"""The keys that seal what customers say: for every service that stores or reads it."""

from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from shared.security.sealing import Key, KeyRing
from shared.settings import ServiceSettings


class SealingSettings(ServiceSettings):
    """One ring for all services: what one of them seals, another one opens."""

    encryption_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        validation_alias=AliasChoices("encryption_keys", "ENCRYPTION_KEYS"),
        description="Secret. Keys that seal content in the database, newest first, each as"
        " `id:base64` of 32 bytes. The first seals, all open: keep old ones until nothing is"
        " sealed under them.",
    )

    @field_validator("encryption_keys", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(SecretStr(part) for part in value.split(",") if part.strip())

    @field_validator("encryption_keys")
    @classmethod
    def _keys(cls, values: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        problems = [] if values else ["needs at least one key, as id:base64"]
        ids: list[str] = []
        for number, value in enumerate(values, 1):
            try:
                ids.append(Key.parse(value.get_secret_value()).id)
            except ValueError as error:
                problems.append(f"key {number} {error}")
        twice = sorted({id_ for id_ in ids if ids.count(id_) > 1})
        problems += [f"the id {id_} stands there twice" for id_ in twice]
        if problems:
            raise ValueError("; ".join(problems))
        return values

    @property
    def key_ring(self) -> KeyRing:
        """The ring of these keys. Each one remembers what it derives, so make one per service."""
        return KeyRing([Key.parse(key.get_secret_value()) for key in self.encryption_keys])
