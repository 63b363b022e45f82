"""The webhook service's settings."""

from datetime import timedelta

from pydantic import AliasChoices, Field

from shared.security.egress import EgressLimits
from shared.security.settings import EgressSettings, SealingSettings


class WebhooksSettings(SealingSettings, EgressSettings):
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
