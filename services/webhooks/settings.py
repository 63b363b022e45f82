"""The webhook service's settings."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import NoDecode

from shared.security.addresses import Network, networks
from shared.security.egress import EgressLimits, EgressPolicy, host_names
from shared.security.settings import SealingSettings


class WebhooksSettings(SealingSettings):
    """Read from the environment once, at start."""

    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("host", "WAYPOST_HOST"),
        description="The address that health and metrics listen on.",
    )
    port: int = Field(
        8083,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("port", "WAYPOST_WEBHOOKS_PORT"),
        description="The port for health and metrics.",
    )
    environment: Literal["development", "production"] = Field(
        "development",
        validation_alias=AliasChoices("environment", "WAYPOST_ENV"),
        description="In production, private networks cannot be opened to webhooks.",
    )
    version: str = Field(
        "0.1.0",
        validation_alias=AliasChoices("version", "WAYPOST_VERSION"),
        description="The version that the User-Agent of a delivery names.",
    )
    timeout: float = Field(
        15.0,
        gt=0,
        le=30,
        validation_alias=AliasChoices("timeout", "WEBHOOK_TIMEOUT"),
        description="Seconds that an endpoint has to answer, connecting included.",
    )
    connect_timeout: float = Field(
        5.0,
        gt=0,
        le=30,
        validation_alias=AliasChoices("connect_timeout", "WEBHOOK_CONNECT_TIMEOUT"),
        description="Seconds to connect to an endpoint.",
    )
    allowed_nets: Annotated[tuple[Network, ...], NoDecode] = Field(
        (),
        validation_alias=AliasChoices("allowed_nets", "WEBHOOK_ALLOWED_NETS"),
        description=(
            "Private networks that webhooks may lead to, for development, such as"
            " 127.0.0.0/8,::1/128. Refused in production."
        ),
    )
    allow_http: bool = Field(
        False,
        validation_alias=AliasChoices("allow_http", "WEBHOOK_ALLOW_HTTP"),
        description="Whether webhooks may use plain http:// outside the allowed networks too.",
    )
    own_hosts: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        validation_alias=AliasChoices("own_hosts", "WEBHOOK_OWN_HOSTS"),
        description="Host names of this very system, comma-separated: a webhook there would loop.",
    )
    slots: int = Field(
        256,
        ge=1,
        le=4096,
        validation_alias=AliasChoices("slots", "WAYPOST_WEBHOOKS_SLOTS"),
        description="How many posts one replica may have under way.",
    )
    endpoint_slots: int = Field(
        32,
        ge=1,
        le=1024,
        validation_alias=AliasChoices("endpoint_slots", "WAYPOST_WEBHOOKS_ENDPOINT_SLOTS"),
        description="How many of them may go to one endpoint that answers well.",
    )
    drain: float = Field(
        20.0,
        ge=0,
        le=60,
        validation_alias=AliasChoices("drain", "WAYPOST_WEBHOOKS_DRAIN"),
        description="Seconds that posts under way may still take at the end.",
    )
    retention_days: int = Field(
        30,
        ge=4,
        le=3650,
        validation_alias=AliasChoices("retention_days", "WAYPOST_WEBHOOKS_RETENTION_DAYS"),
        description="Days that deliveries and attempts are kept; never fewer than retries take.",
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
        """Where deliveries may go."""
        return EgressPolicy(
            allowed_networks=self.allowed_nets,
            allow_http=self.allow_http,
            own_hosts=self.own_hosts,
        )

    @property
    def limits(self) -> EgressLimits:
        """How deliveries go there. Lanes bound what one endpoint gets, so hosts need no bound."""
        return EgressLimits(
            connections=self.slots + 32,  # tests of endpoints do not wait for a slot
            connections_per_host=0,
            # Less than the 5 s after which common servers close: a POST on a closed one is lost.
            keep_alive=timedelta(seconds=4),
            connect=timedelta(seconds=self.connect_timeout),
            total=timedelta(seconds=self.timeout),
        )


def _parts(value: str) -> list[str]:
    return [part for part in value.split(",") if part.strip()]
