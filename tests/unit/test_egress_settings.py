"""Where customers' URLs may lead is one rule, which every service that follows them reads alike."""

from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from services.gateway.settings import GatewaySettings
from services.sessions.settings import SessionsSettings
from services.webhooks.settings import WebhooksSettings
from shared.security.settings import EgressSettings
from tests.support.keys import KEYS

FOLLOW_URLS = pytest.mark.parametrize(
    "settings", [GatewaySettings, SessionsSettings, WebhooksSettings]
)
NEEDED: dict[str, Any] = {
    "database_url": SecretStr("postgresql://localhost/x"),
    "amqp_url": SecretStr("amqp://localhost"),
    "encryption_keys": KEYS,
    "jwt_secret": SecretStr("x" * 32),
    "media_store": "media",
}


def read(settings: type[EgressSettings], **given: Any) -> EgressSettings:
    return settings(**{**NEEDED, **given})


@FOLLOW_URLS
def test_private_networks_are_opened_by_name_and_closed_by_default(
    settings: type[EgressSettings],
) -> None:
    assert not read(settings).policy.permits("127.0.0.1")
    opened = read(settings, allowed_nets="127.0.0.0/8, ::1/128")
    assert opened.allowed_nets == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert opened.policy.permits("127.0.0.1")
    assert not opened.policy.permits("10.0.0.1")


@FOLLOW_URLS
def test_private_networks_cannot_be_opened_in_production(settings: type[EgressSettings]) -> None:
    with pytest.raises(ValidationError, match="WEBHOOK_ALLOWED_NETS"):
        read(settings, allowed_nets="127.0.0.0/8", environment="production")
    assert not read(settings, environment="production").allowed_nets


@FOLLOW_URLS
def test_the_environment_uses_the_names_that_operators_expect(
    monkeypatch: pytest.MonkeyPatch, settings: type[EgressSettings]
) -> None:
    for name, value in {
        "WEBHOOK_ALLOWED_NETS": "::1/128",
        "WEBHOOK_ALLOW_HTTP": "true",
        "WEBHOOK_OWN_HOSTS": "Api.Example.com.,",
    }.items():
        monkeypatch.setenv(name, value)
    found = read(settings)
    assert found.policy.allow_http
    assert found.policy.own_hosts == {"api.example.com"}
    assert found.policy.permits("::1")
    monkeypatch.setenv("WAYPOST_ENV", "production")
    with pytest.raises(ValidationError, match="WEBHOOK_ALLOWED_NETS"):
        read(settings)
