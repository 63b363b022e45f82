"""The dispatcher's settings."""

from pydantic import AliasChoices, Field

from shared.security.settings import SealingSettings


class DispatcherSettings(SealingSettings):
    """Read from the environment once, at start."""

    host: str = Field(
        "127.0.0.1",
        validation_alias=AliasChoices("host", "WAYPOST_HOST"),
        description="The address that health and metrics listen on.",
    )
    port: int = Field(
        8081,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("port", "WAYPOST_DISPATCHER_PORT"),
        description="The port for health and metrics.",
    )
