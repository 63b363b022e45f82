"""Settings that every service has. The only module that reads the environment."""

import sys
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What every service must know. Read once, at start; all problems are reported together."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    database_url: SecretStr = Field(
        validation_alias=AliasChoices("database_url", "DATABASE_URL"),
        description="PostgreSQL, as postgresql://user:password@host:5432/database. 15 or newer.",
    )
    amqp_url: SecretStr = Field(
        validation_alias=AliasChoices("amqp_url", "AMQP_URL"),
        description="RabbitMQ, as amqp://user:password@host:5672/vhost. 3.10 or newer.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        validation_alias=AliasChoices("log_level", "WAYPOST_LOG_LEVEL"),
        description="The least level that is logged. INFO writes one line a request.",
    )
    log_style: Literal["auto", "json", "console"] = Field(
        "auto",
        validation_alias=AliasChoices("log_style", "WAYPOST_LOG_STYLE"),
        description="JSON lines, or coloured text; auto decides by whether a terminal reads it.",
    )
    drain_grace: float = Field(
        0.0,
        ge=0,
        le=60,
        validation_alias=AliasChoices("drain_grace", "WAYPOST_DRAIN_GRACE"),
        description="Seconds to go on serving after SIGTERM with readiness failing.",
    )


S = TypeVar("S", bound=BaseSettings)


def read(settings: type[S], **overrides: Any) -> S:  # noqa: ANN401 - whatever the fields are
    """The settings from the environment; on any problem, say all of them and exit with status 2."""
    try:
        return settings(**overrides)
    except ValidationError as error:
        lines = [f"{_name(problem['loc'])}: {problem['msg']}" for problem in error.errors()]
        sys.stderr.write("Waypost cannot start:\n  " + "\n  ".join(lines) + "\n")
        raise SystemExit(2) from None


def _name(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location).upper()
