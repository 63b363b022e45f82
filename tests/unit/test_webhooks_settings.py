"""Settings that could open a door."""

from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from services.webhooks.settings import WebhooksSettings
from tests.support.keys import KEYS


def settings(**given: Any) -> WebhooksSettings:
    return WebhooksSettings(
        database_url=SecretStr("postgresql://localhost/x"),
        amqp_url=SecretStr("amqp://localhost"),
        **{"encryption_keys": KEYS, **given},
    )


def test_private_networks_are_opened_by_name_and_closed_by_default() -> None:
    assert not settings().policy.permits("127.0.0.1")
    opened = settings(allowed_nets="127.0.0.0/8, ::1/128")
    assert opened.allowed_nets == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert opened.policy.permits("127.0.0.1")
    assert not opened.policy.permits("10.0.0.1")


def test_private_networks_cannot_be_opened_in_production() -> None:
    with pytest.raises(ValidationError, match="WEBHOOK_ALLOWED_NETS"):
        settings(allowed_nets="127.0.0.0/8", environment="production")
    assert not settings(environment="production").allowed_nets


def test_the_environment_uses_the_names_that_operators_expect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "DATABASE_URL": "postgresql://localhost/x",
        "AMQP_URL": "amqp://localhost",
        "ENCRYPTION_KEYS": KEYS,
        "WEBHOOK_TIMEOUT": "7",
        "WEBHOOK_ALLOWED_NETS": "::1/128",
        "WEBHOOK_ALLOW_HTTP": "true",
        "WEBHOOK_OWN_HOSTS": "Api.Example.com.,",
        "WAYPOST_WEBHOOKS_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    read = WebhooksSettings()
    assert (read.timeout, read.port, read.allow_http) == (7, 0, True)
    assert read.policy.own_hosts == {"api.example.com"}
