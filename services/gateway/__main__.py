"""``python -m services.gateway``."""

from services.gateway.app import build
from services.gateway.settings import GatewaySettings
from shared.runtime.main import run

if __name__ == "__main__":
    run("gateway", build, GatewaySettings)
