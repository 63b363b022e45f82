"""The keys that seal what customers say, and where customers' URLs may lead: for every service."""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from shared.security.addresses import Network, networks
from shared.security.egress import EgressPolicy, host_names
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


class EgressSettings(ServiceSettings):
    """One rule for all services: a URL that one of them has taken, another one follows."""

    environment: Literal["development", "production"] = Field(
        "development",
        validation_alias=AliasChoices("environment", "WAYPOST_ENV"),
        description="In production, private networks cannot be opened to customers' URLs.",
    )
    allowed_nets: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        validation_alias=AliasChoices("allowed_nets", "WEBHOOK_ALLOWED_NETS"),
        description="Private networks that webhooks, URLs of files and proxies may lead to, for"
        " development, such as 127.0.0.0/8,::1/128. Refused in production.",
    )
    allow_http: bool = Field(
        False,
        validation_alias=AliasChoices("allow_http", "WEBHOOK_ALLOW_HTTP"),
        description="Whether webhooks and URLs of files may use plain http:// outside the allowed"
        " networks too.",
    )
    own_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        validation_alias=AliasChoices("own_hosts", "WEBHOOK_OWN_HOSTS"),
        description="Host names of this very system, comma-separated: a webhook there would loop,"
        " and no files come from there.",
    )

    @field_validator("allowed_nets", mode="before")
    @classmethod
    def _nets(cls, value: object) -> object:
        return networks(_parts(value)) if isinstance(value, str) else value

    @field_validator("own_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> object:
        return host_names(_parts(value)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _no_open_door_in_production(self) -> Self:
        if self.environment == "production" and self.allowed_nets:
            raise ValueError(
                "WEBHOOK_ALLOWED_NETS opens private networks to customers' URLs:"
                " remove it, or set WAYPOST_ENV=development"
            )
        return self

    @property
    def policy(self) -> EgressPolicy:
        """Where customers' URLs may lead."""
        return EgressPolicy(
            allowed_networks=self.allowed_nets,
            allow_http=self.allow_http,
            own_hosts=self.own_hosts,
        )


def _parts(value: str) -> list[str]:
    return [part for part in value.split(",") if part.strip()]
