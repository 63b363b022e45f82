"""``python -m services.gateway``."""

from services.gateway.app import build
from services.gateway.settings import GatewaySettings
from shared.runtime.main import run

if __name__ == "__main__":
    # What it accepts is committed, and told as soon as the broker is back.
    run("gateway", build, GatewaySettings, works_without_broker=True)
