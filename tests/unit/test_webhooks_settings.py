"""What the webhook service reads; where it may post is in test_egress_settings."""

import pytest

from services.webhooks.settings import WebhooksSettings
from tests.support.keys import KEYS


def test_the_environment_uses_the_names_that_operators_expect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "DATABASE_URL": "postgresql://localhost/x",
        "AMQP_URL": "amqp://localhost",
        "ENCRYPTION_KEYS": KEYS,
        "WEBHOOK_TIMEOUT": "7",
        "WAYPOST_WEBHOOKS_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    read = WebhooksSettings()
    assert (read.timeout, read.port) == (7, 0)
