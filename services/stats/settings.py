"""The statistics service's settings."""

from pydantic import AliasChoices, Field

from shared.settings import ServiceSettings


class StatsSettings(ServiceSettings):
    """Read from the environment once, at start."""

    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("host", "WAYPOST_HOST"),
        description="The address that health and metrics listen on.",
    )
    port: int = Field(
        8084,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("port", "WAYPOST_STATS_PORT"),
        description="The port for health and metrics.",
    )
    inbox_days: int = Field(
        8,
        ge=1,
        le=365,
        validation_alias=AliasChoices("inbox_days", "WAYPOST_STATS_INBOX_DAYS"),
        description="Days for which a repeated event is recognised. More than the event log keeps.",
    )
    hourly_days: int = Field(
        90,
        ge=1,
        le=3650,
        validation_alias=AliasChoices("hourly_days", "WAYPOST_STATS_HOURLY_DAYS"),
        description="Days for which counters by the hour are kept. Those by the day stay.",
    )
    linger: float = Field(
        0.2,
        ge=0,
        le=5,
        validation_alias=AliasChoices("linger", "WAYPOST_STATS_LINGER"),
        description="Seconds to gather events for one transaction; a full batch goes at once.",
    )
