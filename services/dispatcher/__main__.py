"""Run the dispatcher: ``python -m services.dispatcher``."""

from services.dispatcher.app import build
from services.dispatcher.settings import DispatcherSettings
from shared.runtime.main import run

if __name__ == "__main__":
    run("dispatcher", build, DispatcherSettings)
