"""Run the statistics service: ``python -m services.stats``."""

from services.stats.app import build
from services.stats.settings import StatsSettings
from shared.runtime.main import run

if __name__ == "__main__":
    run("stats", build, StatsSettings)
