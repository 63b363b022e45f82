"""The gateway's settings."""

import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway.api.version import VERSION
from services.gateway.settings import GatewaySettings
from shared.errors import Rejected
from tests.support.keys import KEYS

NEEDED = {
    "DATABASE_URL": "postgresql://u@db/waypost",
    "AMQP_URL": "amqp://mq",
    "JWT_SECRET": "x" * 32,
    "ENCRYPTION_KEYS": KEYS,
    "WAYPOST_MEDIA_STORE": "s3://waypost/media",
}


def settings(monkeypatch: pytest.MonkeyPatch, **given: str) -> GatewaySettings:
    for name, value in {**NEEDED, **given}.items():
        monkeypatch.setenv(name, value)
    read: Any = GatewaySettings
    found = read()
    assert isinstance(found, GatewaySettings)
    return found


def test_what_has_no_safe_default_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert (found.host, found.port) == ("127.0.0.1", 8080)
    assert "x" * 32 not in repr(found)
    with pytest.raises(ValidationError, match=r"JWT_SECRET|jwt_secret"):
        settings(monkeypatch, JWT_SECRET="too short")


def test_lists_are_parted_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        WAYPOST_CORS_ORIGINS="https://a.example, https://b.example",
        WEBHOOK_ALLOWED_NETS="127.0.0.0/8,::1/128",
        WEBHOOK_OWN_HOSTS="API.example.",
    )
    assert found.cors_origins == ("https://a.example", "https://b.example")
    assert found.allowed_nets == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    found.policy.vet("http://127.0.0.1:9000/hook")
    with pytest.raises(Rejected):
        found.policy.vet("https://api.example/hook")


def test_the_secret_before_the_last_is_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, JWT_SECRET_PREVIOUS="y" * 32)
    assert found.secrets == ["x" * 32, "y" * 32]


def test_the_version_is_the_packages() -> None:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == VERSION
