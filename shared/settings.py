"""Settings that every service has. The only module that reads the environment."""

import os
import sys
from collections.abc import Collection
from typing import Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

_SCHEMES = {"database_url": ("postgresql", "postgres"), "amqp_url": ("amqp", "amqps")}


class ServiceSettings(BaseSettings):
    """What every service must know. Read once, at start; all problems are reported together."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        case_sensitive=True,  # a field's own name is for programs: PORT and HOST are anybody's
        env_ignore_empty=True,  # a compose file hands on what is not set as an empty string
        hide_input_in_errors=True,
    )

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

    @field_validator("database_url", "amqp_url")
    @classmethod
    def _is_such_an_address(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        scheme, separator, _ = url.get_secret_value().partition("://")
        schemes = _SCHEMES[info.field_name or ""]
        if not separator or scheme.partition("+")[0] not in schemes:
            raise ValueError(f"must start with {schemes[0]}://")
        return url


S = TypeVar("S", bound=BaseSettings)


def read(settings: type[S], **overrides: Any) -> S:
    """The settings from the environment; on any problem, say all of them and exit with status 2."""
    try:
        return settings(**overrides)
    except ValidationError as error:
        lines = [_line(settings, problem["loc"], problem["msg"]) for problem in error.errors()]
        sys.stderr.write("Waypost cannot start:\n  " + "\n  ".join(lines) + "\n")
        raise SystemExit(2) from None


def inherited(names: Collection[str], *, beginning: str) -> dict[str, str]:
    """What of the environment a process that we start is given: these, and nothing secret.

    Also what begins with ``beginning``, by which a test reaches a process that it does not start.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(beginning)
    }


def _line(settings: type[BaseSettings], location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return message  # it is about several settings, which it names itself
    first, *rest = location
    name = _environment_names(settings).get(str(first), str(first).upper())
    return f"{'.'.join([name, *map(str, rest)])}: {message}"


def _environment_names(settings: type[BaseSettings]) -> dict[str, str]:
    """What operators call each setting, by any of its names; the last choice is theirs."""
    names = {}
    for field, declared in settings.model_fields.items():
        alias = declared.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias or field.upper()]
        names.update(dict.fromkeys([field, *map(str, choices)], str(choices[-1])))
    return names
