"""The session service's settings."""

from typing import Self

from pydantic import AliasChoices, Field, model_validator

from shared.settings import ServiceSettings


def _env(name: str) -> AliasChoices:
    return AliasChoices(name, f"WAYPOST_SESSIONS_{name.upper()}")


class SessionsSettings(ServiceSettings):
    """How connections are owned and how long engines may take."""

    host: str = Field(
        "0.0.0.0",  # noqa: S104 - a container is reached from outside itself
        validation_alias=_env("host"),
        description="Address on which /health and /metrics are served.",
    )
    port: int = Field(
        8082,
        ge=0,
        le=65535,
        validation_alias=_env("port"),
        description="Port of /health and /metrics; 0 serves neither (embedded).",
    )
    lease_ttl: float = Field(
        15.0,
        gt=0,
        validation_alias=_env("lease_ttl"),
        description="Seconds that a lease on a shard lasts: how long a crashed owner is waited for.",
    )
    renew_every: float = Field(
        3.0,
        gt=0,
        validation_alias=_env("renew_every"),
        description="Seconds between two renewals of all leases of this process.",
    )
    fence_after: float = Field(
        10.0,
        gt=0,
        validation_alias=_env("fence_after"),
        description="Seconds without a successful renewal after which this process stops sending.",
    )
    claim_every: float = Field(
        1.0,
        gt=0,
        validation_alias=_env("claim_every"),
        description="Seconds between two looks for shards that nobody owns.",
    )
    release_every: float = Field(
        2.0,
        gt=0,
        validation_alias=_env("release_every"),
        description="Seconds between two shards given up because another process has too few.",
    )
    replica_dead_after: float = Field(
        15.0,
        gt=0,
        validation_alias=_env("replica_dead_after"),
        description="Seconds without a heartbeat after which a process gets no share of the shards.",
    )
    logins_per_second: float = Field(
        5.0,
        gt=0,
        validation_alias=_env("logins_per_second"),
        description="How many connections this process opens per second; more looks like an attack.",
    )
    reconcile_every: float = Field(
        5.0,
        gt=0,
        validation_alias=_env("reconcile_every"),
        description="Seconds between two comparisons of wanted and live connections.",
    )
    transmit_deadline: float = Field(
        8.0,
        gt=0,
        validation_alias=_env("transmit_deadline"),
        description="Seconds that WhatsApp may take to acknowledge a message before it is unknown.",
    )
    drain: float = Field(
        10.0,
        ge=0,
        validation_alias=_env("drain"),
        description="Seconds that messages in flight may still take when a shard is given up.",
    )
    in_flight: int = Field(
        2000,
        ge=1,
        validation_alias=_env("in_flight"),
        description="Messages that this process has in flight before it takes no more commands.",
    )
    keep_days: int = Field(
        7,
        ge=1,
        validation_alias=_env("keep_days"),
        description="Days for which handovers and seen stanzas are remembered.",
    )

    @model_validator(mode="after")
    def _fence_in_time(self) -> Self:
        if not self.renew_every < self.fence_after < self.lease_ttl:
            raise ValueError("renew_every < fence_after < lease_ttl must hold, or two may own a shard")
        return self
