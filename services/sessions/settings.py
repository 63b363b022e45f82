"""The session service's settings."""

from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from shared.media.settings import MediaSettings
from shared.security.egress import EgressLimits
from shared.security.settings import EgressSettings, SealingSettings


def _env(name: str) -> AliasChoices:
    return AliasChoices(name, f"WAYPOST_SESSIONS_{name.upper()}")


class SessionsSettings(MediaSettings, SealingSettings, EgressSettings):
    """How connections are owned and how long engines may take."""

    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("host", "WAYPOST_HOST"),
        description="The address that health and metrics listen on.",
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
        description="Seconds that a lease on a shard lasts: how long a dead owner is waited for.",
    )
    renew_every: float | None = Field(
        None,
        gt=0,
        validation_alias=_env("renew_every"),
        description="Seconds between two renewals of all leases; unset: a fifth of the lease.",
    )
    fence_after: float | None = Field(
        None,
        gt=0,
        validation_alias=_env("fence_after"),
        description="Seconds without renewal until sending stops; unset: two thirds of the lease.",
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
    replica_dead_after: float | None = Field(
        None,
        gt=0,
        validation_alias=_env("replica_dead_after"),
        description="Seconds without a heartbeat until a process has no share; unset: the lease's.",
    )
    logins_per_second: float = Field(
        5.0,
        gt=0,
        validation_alias=_env("logins_per_second"),
        description="Connections that this process opens per second; more looks like an attack.",
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
    media_deadline: float = Field(
        30.0,
        gt=0,
        validation_alias=_env("media_deadline"),
        description="Seconds that a file may take to be fetched, and again to be uploaded.",
    )
    media_at_once: int = Field(
        16,
        ge=1,
        validation_alias=_env("media_at_once"),
        description="Files that this process sends at a time, at most a quarter of them for one"
        " tenant; each is on its disk meanwhile.",
    )
    fetch_at_once: int = Field(
        4,
        ge=1,
        validation_alias=_env("fetch_at_once"),
        description="Files of received messages that this process fetches at a time, of more than"
        " three at most three quarters for one tenant; each is on its disk meanwhile.",
    )
    fetch_deadline: float = Field(
        120.0,
        gt=0,
        validation_alias=_env("fetch_deadline"),
        description="Seconds that fetching one of them may take before it is tried again later.",
    )
    fetch_largest: int = Field(
        100 * 1024 * 1024,
        ge=1024,
        validation_alias=_env("fetch_largest"),
        description="The largest file that is fetched, in bytes.",
    )
    scratch: Path | None = Field(
        None,
        validation_alias=_env("scratch"),
        description="The folder for files in passing; unset: one in the machine's temporary"
        " folder. Processes may share it.",
    )
    whatsmeow_per_worker: int = Field(
        20,
        ge=1,
        le=200,
        validation_alias=_env("whatsmeow_per_worker"),
        description="Linked devices that one worker process holds; one more starts another.",
    )
    whatsmeow_database_url: SecretStr | None = Field(
        None,
        validation_alias=_env("whatsmeow_database_url"),
        description="The same database as DATABASE_URL, as workers reach it; unset: by that.",
    )
    whatsmeow_deaf_after: float = Field(
        45.0,
        ge=1,
        validation_alias=_env("whatsmeow_deaf_after"),
        description="Seconds without a word from WhatsApp until a linked device is reconnected;"
        " it is asked for one every 20 to 30.",
    )
    cloud_api_url: str = Field(
        "https://graph.facebook.com/v26.0",
        validation_alias=_env("cloud_api_url"),
        description="Where Meta's Graph API is, with its version, for instances of the Cloud API.",
    )
    cloud_api_connections: int = Field(
        100,
        ge=1,
        validation_alias=_env("cloud_api_connections"),
        description="Connections to it at a time, of all instances together.",
    )
    device_name: str = Field(
        "Waypost",
        min_length=1,
        max_length=50,
        validation_alias=_env("device_name"),
        description="How phones list devices whose instance has no name for that of its own.",
    )
    proxies: SecretStr | None = Field(
        None,
        validation_alias=_env("proxies"),
        description="Proxies for linked devices that have none of their own: http, https or socks5"
        " URLs, comma-separated. Each device keeps one until connecting by it fails.",
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
    questions: int = Field(
        200,
        ge=1,
        validation_alias=_env("questions"),
        description="Questions to WhatsApp that this process has open before it refuses more.",
    )
    questions_each: int = Field(
        8,
        ge=1,
        validation_alias=_env("questions_each"),
        description="Questions that one instance has open before it refuses more.",
    )
    keep_days: int = Field(
        7,
        ge=1,
        validation_alias=_env("keep_days"),
        description="Days for which handovers and seen stanzas are remembered.",
    )

    @property
    def ttl(self) -> timedelta:
        """How long a lease lasts."""
        return timedelta(seconds=self.lease_ttl)

    @property
    def renewal(self) -> timedelta:
        """How often leases are renewed."""
        return self.ttl / 5 if self.renew_every is None else timedelta(seconds=self.renew_every)

    @property
    def fence(self) -> timedelta:
        """How long after the last renewal this process may still send."""
        return self.ttl * 2 / 3 if self.fence_after is None else timedelta(seconds=self.fence_after)

    @property
    def dead_after(self) -> timedelta:
        """How long after its last heartbeat a process counts as dead."""
        given = self.replica_dead_after
        return self.ttl if given is None else timedelta(seconds=given)

    @property
    def proxy_pool(self) -> tuple[str, ...]:
        """The proxies for linked devices."""
        return tuple(_parts("" if self.proxies is None else self.proxies.get_secret_value()))

    @property
    def limits(self) -> EgressLimits:
        """How files come from there."""
        return EgressLimits(
            connections=self.media_at_once,
            connections_per_host=self.media_at_once,
            total=timedelta(seconds=self.media_deadline),
        )

    @property
    def cloud_api_limits(self) -> EgressLimits:
        """How Meta is spoken to; each kind of request has a deadline of its own."""
        return EgressLimits(
            connections=self.cloud_api_connections,
            connections_per_host=self.cloud_api_connections,
            # A message on a connection that Meta is just closing would be in doubt.
            keep_alive=timedelta(seconds=15),
        )

    @field_validator("cloud_api_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname:
            raise ValueError("must start with https:// and name a host")
        return value.rstrip("/")

    @field_validator("proxies")
    @classmethod
    def _are_proxies(cls, value: SecretStr | None) -> SecretStr | None:
        urls = [] if value is None else _parts(value.get_secret_value())
        if any(urlsplit(url).scheme not in {"http", "https", "socks5"} for url in urls):
            raise ValueError("every proxy must start with http://, https:// or socks5://")
        return value

    @model_validator(mode="after")
    def _fence_in_time(self) -> Self:
        if not self.renewal < self.fence < self.ttl:
            raise ValueError(
                "renew_every < fence_after < lease_ttl must hold, or two may own a shard"
            )
        return self


def _parts(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
