"""Where the command line finds the database."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.runtime.data_folder import DataFolder


class CommandLineSettings(BaseSettings):
    """Read from the environment; without ``DATABASE_URL``, what ``make run`` keeps is meant."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        case_sensitive=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("database_url", "DATABASE_URL"),
        description="PostgreSQL, as the services have it.",
    )
    encryption_keys: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("encryption_keys", "ENCRYPTION_KEYS"),
        description="The keys that seal content, as the services have them.",
    )
    data: Path = Field(
        Path(".waypost"),
        validation_alias=AliasChoices("data", "WAYPOST_DATA"),
        description="Where `make run` keeps what it has, if there is no DATABASE_URL.",
    )

    def database(self) -> str | None:
        """The database's URL; none if there is no such database."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return DataFolder(self.data).database_url()

    def keys(self) -> str | None:
        """The keys of that database, as operators write them."""
        if self.encryption_keys is not None:
            return self.encryption_keys.get_secret_value()
        if self.database_url is not None:
            return None
        return DataFolder(self.data).encryption_keys()
