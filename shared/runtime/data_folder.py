"""The folder in which a Waypost in one process keeps everything: ``.waypost/``."""

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from shared.security.sealing import Key


class DataFolder:
    """What is where in it. Secrets are made when they are first asked for, and then kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.postgres = path / "postgres"
        self.media = path / "media"
        self._url = path / "database-url"
        self._keys = path / "encryption-keys"
        self._secrets = path / "secrets.json"

    def make(self) -> None:
        """Make the folder if there is none."""
        self.path.mkdir(parents=True, exist_ok=True)

    def encryption_keys(self) -> str:
        """The ring that seals content, as operators write it.

        Not in one file with what may be thrown away: without the keys what they sealed is lost.
        """
        return _kept(self._keys, lambda: Key.new("1").written())

    def jwt_secret(self) -> str:
        """The secret that signs tokens."""
        kept = _kept(self._secrets, lambda: json.dumps({"jwtSecret": secrets.token_urlsafe(48)}))
        return str(json.loads(kept)["jwtSecret"])

    def tell_database(self, url: str) -> None:
        """Say where the database is, for a command line that looks after this folder."""
        self._url.write_text(url)

    def database_url(self) -> str | None:
        """Where the database was when Waypost last started here; none if it never did."""
        return self._url.read_text().strip() if self._url.exists() else None


def _kept(path: Path, make: Callable[[], str]) -> str:
    """A secret that is made once and kept with the data, readable by its owner alone."""
    if not path.exists():
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    return path.read_text().strip()
