"""Run the session service alone, over RabbitMQ and PostgreSQL."""

from services.sessions.app import build
from services.sessions.settings import SessionsSettings
from shared.runtime.main import run

if __name__ == "__main__":
    run("sessions", build, SessionsSettings)
