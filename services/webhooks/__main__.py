"""Run the webhook service: ``python -m services.webhooks``."""

from services.webhooks.app import build
from services.webhooks.settings import WebhooksSettings
from shared.runtime.main import run

if __name__ == "__main__":
    run("webhooks", build, WebhooksSettings)
